//! The library's status codes as an error.

use std::fmt;

/// What went wrong, in kinds. The numbers behind them are pinned in `dlattn.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value or a combination that no call accepts.
    Argument,
    /// Ranks, extents, strides or overlaps that do not fit together.
    Shape,
    /// A dtype that this tensor may not have.
    Dtype,
    /// A device the library does not serve, or tensors on two devices.
    Device,
    /// Well-formed, but no backend computes it; see [`Attention::explain`](crate::Attention::explain).
    Unsupported,
    /// Workspace too small or misaligned.
    Workspace,
    /// Host memory could not be had.
    OutOfMemory,
    /// The CUDA driver reported an error.
    Cuda,
    /// A kernel could not be compiled or loaded.
    Compile,
    /// A defect of the library: please report it.
    Internal,
    /// A code that this version of the crate does not know.
    Unknown,
}

/// A call that was refused. It displays as the library's sentence: which tensor, what was found, what was expected.
/// Nothing has been written then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: i32,
    message: String,
}

/// The result of every call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(code: i32, message: String) -> Self {
        Self { code, message }
    }

    /// The status code of `dlattn.h`.
    pub fn code(&self) -> i32 {
        self.code
    }

    /// The kind that the code stands for.
    pub fn kind(&self) -> ErrorKind {
        match self.code {
            dlattn_sys::DLATTN_ERR_ARGUMENT => ErrorKind::Argument,
            dlattn_sys::DLATTN_ERR_SHAPE => ErrorKind::Shape,
            dlattn_sys::DLATTN_ERR_DTYPE => ErrorKind::Dtype,
            dlattn_sys::DLATTN_ERR_DEVICE => ErrorKind::Device,
            dlattn_sys::DLATTN_ERR_UNSUPPORTED => ErrorKind::Unsupported,
            dlattn_sys::DLATTN_ERR_WORKSPACE => ErrorKind::Workspace,
            dlattn_sys::DLATTN_ERR_OUT_OF_MEMORY => ErrorKind::OutOfMemory,
            dlattn_sys::DLATTN_ERR_CUDA => ErrorKind::Cuda,
            dlattn_sys::DLATTN_ERR_COMPILE => ErrorKind::Compile,
            dlattn_sys::DLATTN_ERR_INTERNAL => ErrorKind::Internal,
            _ => ErrorKind::Unknown,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
