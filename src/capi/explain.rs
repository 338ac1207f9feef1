//! What would be said, without saying it.

use super::speech::{Failure, c_string, call, fail, handle, resolve, text_bytes};
use super::*;
use crate::speech::phonemes::{Origin, render};
use crate::speech::text::{TextFrontend, utf8};
use crate::speech::written::{Explained, explain};
use core::ffi::{c_char, c_void};
use core::ptr::null;
use std::ffi::CString;

pub const VX_ORIGIN_OTHER: i32 = 0;
pub const VX_ORIGIN_GIVEN: i32 = 1;
pub const VX_ORIGIN_USER: i32 = 2;
pub const VX_ORIGIN_LEXICON: i32 = 3;
pub const VX_ORIGIN_COMPOUND: i32 = 4;
pub const VX_ORIGIN_SPELT: i32 = 5;
pub const VX_ORIGIN_LETTERS: i32 = 6;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_word {
    pub text: *const c_char,
    pub begin: usize,
    pub end: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_pronunciation {
    pub word: *const c_char,
    pub phonemes: *const c_char,
    pub origin: i32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_change {
    pub written: *const c_char,
    pub spoken: *const c_char,
    pub begin: usize,
    pub end: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct vx_sentence {
    pub size: u32,
    pub pause_after: f32,
    pub begin: usize,
    pub end: usize,
    pub text: *const c_char,
    pub phonemes: *const c_char,
    pub words: *const vx_word,
    pub word_count: usize,
    pub pronunciations: *const vx_pronunciation,
    pub pronunciation_count: usize,
    pub changes: *const vx_change,
    pub change_count: usize,
}

pub type vx_sentence_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, sentence: *const vx_sentence) -> i32>;

fn origin(origin: Origin) -> i32 {
    match origin {
        Origin::Given => VX_ORIGIN_GIVEN,
        Origin::User => VX_ORIGIN_USER,
        Origin::Lexicon => VX_ORIGIN_LEXICON,
        Origin::Compound => VX_ORIGIN_COMPOUND,
        Origin::Spelt => VX_ORIGIN_SPELT,
        Origin::Letters => VX_ORIGIN_LETTERS,
    }
}

/// Strings for C, kept until the callback has seen them.
#[derive(Default)]
struct Strings(Vec<CString>);

impl Strings {
    /// The bytes of a [`CString`] stay where they are when the list grows.
    fn keep(&mut self, text: &str) -> *const c_char {
        let text = c_string(text);
        let at = text.as_ptr();
        self.0.push(text);
        at
    }
}

/// One sentence, handed to `see`; what that returns.
fn show(told: &Explained, see: &mut impl FnMut(&vx_sentence) -> i32) -> i32 {
    let mut strings = Strings::default();
    let (sentence, spoken) = (&told.sentence, told.said());
    let words: Vec<vx_word> = sentence
        .words
        .iter()
        .map(|w| vx_word { text: strings.keep(&w.text), begin: w.source.start, end: w.source.end })
        .collect();
    let pronunciations: Vec<vx_pronunciation> = spoken
        .iter()
        .map(|s| vx_pronunciation {
            word: strings.keep(&s.text),
            phonemes: strings.keep(&s.phonemes),
            origin: origin(s.origin),
            reserved: 0,
        })
        .collect();
    let mut changes: Vec<vx_change> = sentence
        .replaced
        .iter()
        .map(|r| vx_change {
            written: strings.keep(&r.original),
            spoken: strings.keep(&r.spoken),
            begin: r.source.start,
            end: r.source.end,
        })
        .collect();
    changes.extend(sentence.left_out.iter().map(|u| vx_change {
        written: strings.keep(&u.text),
        spoken: null(),
        begin: u.position,
        end: u.position + u.text.len(),
    }));
    changes.sort_by_key(|c| c.begin);
    see(&vx_sentence {
        size: size_of::<vx_sentence>() as u32,
        pause_after: sentence.pause_after,
        begin: sentence.source.start,
        end: sentence.source.end,
        text: strings.keep(&sentence.text),
        phonemes: strings.keep(&render(&spoken)),
        words: words.as_ptr(),
        word_count: words.len(),
        pronunciations: pronunciations.as_ptr(),
        pronunciation_count: pronunciations.len(),
        changes: changes.as_ptr(),
        change_count: changes.len(),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vx_voice_explain(
    voice: *const vx_voice,
    options: *const vx_options,
    text: *const c_char,
    bytes: usize,
    sink: vx_sentence_fn,
    user: *mut c_void,
) -> vx_status {
    call(|| {
        // SAFETY: null or an open voice, which nobody closes during the call; the options are null
        // or a struct of the caller's as large as it says; the text stays as it is during the call.
        let (voice, options, text) =
            unsafe { (handle(voice, "voice")?, read(options)?, text_bytes(text, bytes)?) };
        let Some(sink) = sink else {
            return fail(VX_E_ARGUMENT, "sink is null");
        };
        // SAFETY: the speaker's name is null or ends with a zero and stays as it is during the
        // call.
        let (voice, options) = unsafe { resolve(&voice.voice, &options)? };
        let frontend = TextFrontend::new(options.text)?;
        for told in explain(&frontend, voice.phonemizer(), utf8(text)?)? {
            let stopped = show(&told, &mut |s| {
                // SAFETY: a function of this type that returns, with `user` as the caller gave it;
                // the sentence and all that it points to live until it does.
                unsafe { sink(user, s) }
            });
            if stopped != 0 {
                return Err(Failure(VX_E_CANCELLED, "the callback asked to stop".into()));
            }
        }
        Ok(VX_OK)
    })
}
