//! How a whole file is quantised: the names that people choose by (`Q4_K_M`), each of which stands for a mixture of formats.

use super::TensorKind;

/// A name that is none of a [`FileType`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{name}` is no type of file that can be written; choose one of {}", FileType::names())]
pub struct Unknown {
    name: String,
}

macro_rules! file_types {
    ($($variant:ident = $code:literal, $base:ident;)+) => {
        /// A mixture of formats, as llama.cpp defines it (`llama_ftype`).
        #[allow(non_camel_case_types, reason = "these are the names the mixtures are known by")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FileType { $($variant),+ }

        impl FileType {
            /// All that can be written.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As people write it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }

            /// llama.cpp's number for it, which `general.file_type` holds.
            #[must_use]
            pub fn code(self) -> u32 {
                match self { $(Self::$variant => $code),+ }
            }

            /// The format that most tensors get.
            #[must_use]
            pub fn base(self) -> TensorKind {
                match self { $(Self::$variant => TensorKind::$base),+ }
            }
        }
    };
}

file_types! {
    F32 = 0, F32;
    F16 = 1, F16;
    BF16 = 32, BF16;
    Q8_0 = 7, Q8_0;
    Q4_0 = 2, Q4_0;
    Q4_1 = 3, Q4_1;
    Q5_0 = 8, Q5_0;
    Q5_1 = 9, Q5_1;
    Q2_K = 10, Q2_K;
    Q2_K_S = 21, Q2_K;
    Q3_K_S = 11, Q3_K;
    Q3_K_M = 12, Q3_K;
    Q3_K_L = 13, Q3_K;
    Q4_K_S = 14, Q4_K;
    Q4_K_M = 15, Q4_K;
    Q5_K_S = 16, Q5_K;
    Q5_K_M = 17, Q5_K;
    Q6_K = 18, Q6_K;
    IQ4_NL = 25, IQ4_NL;
    IQ4_XS = 30, IQ4_XS;
}

impl FileType {
    fn names() -> String {
        let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
        names.join(", ")
    }

    /// The type behind llama.cpp's number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }

    /// Whether numbers are packed in blocks rather than kept each for itself.
    #[must_use]
    pub fn is_quantized(self) -> bool {
        self.base().block_size() > 1
    }

    /// Whether a file of this type is only good with an importance matrix; llama-quantize refuses to make one without.
    #[must_use]
    pub fn needs_importance(self) -> bool {
        self == Self::Q2_K_S
    }
}

impl std::str::FromStr for FileType {
    type Err = Unknown;

    /// Upper or lower case alike; `Q3_K`, `Q4_K` and `Q5_K` stand for the middle one of theirs, as in llama.cpp.
    fn from_str(name: &str) -> Result<Self, Unknown> {
        let middle = ["Q3_K", "Q4_K", "Q5_K"].into_iter().find(|short| short.eq_ignore_ascii_case(name)).map(|short| format!("{short}_M"));
        let full = middle.as_deref().unwrap_or(name);
        let known = Self::ALL.iter().copied().find(|kind| kind.name().eq_ignore_ascii_case(full));
        known.ok_or_else(|| Unknown { name: name.chars().take(40).flat_map(char::escape_debug).collect() })
    }
}

impl std::fmt::Display for FileType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
