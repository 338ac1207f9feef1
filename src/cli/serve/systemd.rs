//! What systemd is told, where it started the program: ready, stopping, alive. It listens on a
//! datagram socket that it names in the environment; anywhere else nothing is told.

use std::time::Duration;

/// Sends one state, such as `READY=1`; nobody listening is no error.
#[cfg(target_os = "linux")]
pub fn tell(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&name),
    };
    let send = || UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address?);
    if let Err(e) = send() {
        log::warn!("systemd could not be told {state:?}: {e}");
    }
}

#[cfg(not(target_os = "linux"))]
pub fn tell(_: &str) {}

/// How often systemd wants to hear that the program is alive, if it does.
pub fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let us = number("WATCHDOG_USEC").filter(|&us| us > 0)?;
    let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    mine.then(|| Duration::from_micros(us))
}
