use std::ffi::CStr;
use std::fmt;
use std::os::raw::c_char;

use kvlane_sys::{kvl_last_error, kvl_status, kvl_status_name, KVL_ERROR_LENGTH, KVL_OK};

/// A failed call: its status, and a text that names the argument, its value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    status: kvl_status,
    text: String,
}

/// The result of a call that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(status: kvl_status, text: String) -> Self {
        Self { status, text }
    }

    pub(crate) fn within(self, place: &str) -> Self {
        Self { text: format!("{place}: {}", self.text), ..self }
    }

    /// Returns the status, `sys::KVL_ERROR_LENGTH` for example.
    pub fn status(&self) -> kvl_status {
        self.status
    }

    /// Returns the name of the status, "KVL_ERROR_LENGTH" for example.
    pub fn status_name(&self) -> &'static str {
        // Safety: the string lives as long as the program.
        unsafe { text(kvl_status_name(self.status)) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status_name(), self.text)
    }
}

impl std::error::Error for Error {}

/// One of the library's names, which must be valid for the lifetime that the caller chooses.
pub(crate) unsafe fn text<'a>(string: *const c_char) -> &'a str {
    CStr::from_ptr(string).to_str().expect("names of the library are ASCII")
}

/// The status of a call of this thread, with the text of kvl_last_error.
pub(crate) fn check(status: kvl_status) -> Result<()> {
    if status == KVL_OK {
        return Ok(());
    }
    // Safety: the text is valid until this thread's next failing call, and copied before it.
    let text = unsafe { CStr::from_ptr(kvl_last_error()) };
    Err(Error::new(status, text.to_string_lossy().into_owned()))
}

/// A slice has exactly the elements that the shape needs.
pub(crate) fn check_len(name: &str, len: usize, needed: u128, shape: &str) -> Result<()> {
    if len as u128 == needed {
        return Ok(());
    }
    let text = format!("{name} has {len} elements; it must have {needed}: {shape}");
    Err(Error::new(KVL_ERROR_LENGTH, text))
}

/// A number of tokens or bytes in C. No larger one is valid either, so that C's error stays right.
pub(crate) fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A number of elements of an array in C.
pub(crate) fn array_len(name: &str, len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| {
        let text = format!("{name} has {len} elements; it must have at most {}", u32::MAX);
        Error::new(KVL_ERROR_LENGTH, text)
    })
}
