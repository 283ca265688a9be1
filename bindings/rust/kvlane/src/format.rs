use std::ffi::CString;
use std::fmt;
use std::str::FromStr;

use kvlane_sys::*;

use crate::error::{check, text};
use crate::{Error, Result};

/// Storage format of keys, values, queries or outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Format {
    /// IEEE 754 binary32
    F32 = KVL_F32,
    /// IEEE 754 binary16
    F16 = KVL_F16,
    /// The upper half of a binary32
    Bf16 = KVL_BF16,
    /// 8-bit integers with one scale per row; in packed tiles only
    Q8 = KVL_Q8,
    /// 4-bit codes with one multiplier per group of 32 elements and one scale per row; in packed tiles only
    Q4 = KVL_Q4,
}

impl Format {
    pub(crate) fn from_c(format: kvl_format) -> Self {
        match format {
            KVL_F32 => Self::F32,
            KVL_F16 => Self::F16,
            KVL_BF16 => Self::Bf16,
            KVL_Q8 => Self::Q8,
            KVL_Q4 => Self::Q4,
            other => unreachable!("format {other} is in no layer that these bindings create"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Safety: the name of a known format is not null, and lives as long as the program.
        f.write_str(unsafe { text(kvl_format_name(*self as kvl_format)) })
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Finds the format with this name, "f16" for example.
    fn from_str(name: &str) -> Result<Self> {
        let unknown = |_| Error::new(KVL_ERROR_FORMAT, format!("name is {name:?}; no format has that name"));
        let c_name = CString::new(name).map_err(unknown)?;
        let mut format = 0;
        // Safety: the name ends with a zero byte.
        check(unsafe { kvl_format_from_name(c_name.as_ptr(), &mut format) })?;
        Ok(Self::from_c(format))
    }
}

/// Orthogonal matrix that rows are multiplied by before they are stored, which reduces the error of quantization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Rotation {
    /// Hadamard for q4 and for q8 keys, else none
    #[default]
    ByFormat = KVL_ROTATION_DEFAULT,
    /// Rows are stored as they are
    None = KVL_ROTATION_NONE,
    /// Walsh-Hadamard of the row's size; block diagonal if that is not a power of two
    Hadamard = KVL_ROTATION_HADAMARD,
}

impl Rotation {
    pub(crate) fn from_c(rotation: kvl_rotation) -> Self {
        match rotation {
            KVL_ROTATION_DEFAULT => Self::ByFormat,
            KVL_ROTATION_NONE => Self::None,
            KVL_ROTATION_HADAMARD => Self::Hadamard,
            other => unreachable!("rotation {other} is in no layer that these bindings create"),
        }
    }
}

/// Rounding of queries and softmax weights before they are multiplied by keys and values in q8 or q4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Precision {
    /// As fast, and valid for all formats
    #[default]
    ByFormat = KVL_PRECISION_DEFAULT,
    /// No rounding
    Exact = KVL_PRECISION_EXACT,
    /// To 8-bit or 16-bit integers; valid only if both formats are q8 or q4
    Fast = KVL_PRECISION_FAST,
}
