//! Tables: the same cells as Markdown or HTML, and the quoting of CSV.

/// A Markdown table; every row has as many cells as `head`.
pub fn markdown<H: AsRef<str>>(head: &[H], rows: &[Vec<String>]) -> String {
    let names: Vec<&str> = head.iter().map(H::as_ref).collect();
    let mut out = format!("| {} |\n|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for row in rows {
        out.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    out
}

/// An HTML table of `class`; without a head if there are no names for it.
pub fn html<H: AsRef<str>>(class: &str, head: &[H], rows: &[Vec<String>]) -> String {
    let mut out = format!("<div class=\"wrap\"><table class=\"{class}\">");
    if !head.is_empty() {
        out.push_str("<thead><tr>");
        head.iter().for_each(|h| out.push_str(&format!("<th>{}</th>", escape(h.as_ref()))));
        out.push_str("</tr></thead>");
    }
    out.push_str("<tbody>");
    for row in rows {
        out.push_str("<tr>");
        row.iter().for_each(|c| out.push_str(&format!("<td>{}</td>", escape(c))));
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A field of CSV, quoted where it must be.
pub fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
