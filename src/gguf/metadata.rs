//! The key-value pairs of a GGUF file.

/// One value. Arrays are flat: arrays of arrays are refused, as llama.cpp does.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    U8s(Vec<u8>),
    I8s(Vec<i8>),
    U16s(Vec<u16>),
    I16s(Vec<i16>),
    U32s(Vec<u32>),
    I32s(Vec<i32>),
    U64s(Vec<u64>),
    I64s(Vec<i64>),
    F32s(Vec<f32>),
    F64s(Vec<f64>),
    Bools(Vec<bool>),
    Strings(Strings),
}

impl Value {
    /// As a whole number, whichever integer type it was written with.
    #[must_use]
    pub fn as_integer(&self) -> Option<i128> {
        Some(match self {
            Self::U8(n) => (*n).into(),
            Self::I8(n) => (*n).into(),
            Self::U16(n) => (*n).into(),
            Self::I16(n) => (*n).into(),
            Self::U32(n) => (*n).into(),
            Self::I32(n) => (*n).into(),
            Self::U64(n) => (*n).into(),
            Self::I64(n) => (*n).into(),
            _ => return None,
        })
    }

    fn as_integers(&self) -> Option<Vec<i128>> {
        fn wide<T: Copy + Into<i128>>(numbers: &[T]) -> Vec<i128> {
            numbers.iter().map(|n| (*n).into()).collect()
        }
        Some(match self {
            Self::U8s(n) => wide(n),
            Self::I8s(n) => wide(n),
            Self::U16s(n) => wide(n),
            Self::I16s(n) => wide(n),
            Self::U32s(n) => wide(n),
            Self::I32s(n) => wide(n),
            Self::U64s(n) => wide(n),
            Self::I64s(n) => wide(n),
            _ => return None,
        })
    }
}

/// Many strings in one piece of memory: a vocabulary has hundreds of thousands. They need not be UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`.
    ends: Vec<usize>,
}

impl Strings {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { bytes: Vec::new(), ends: Vec::with_capacity(count) }
    }

    /// Adds the string that `write` puts behind the bytes it is given.
    pub(super) fn push_with<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        write(&mut self.bytes)?;
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// Adds a string.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index).unwrap_or_default())
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Self::default();
        for string in strings {
            all.push(string.as_ref());
        }
        all
    }
}

/// All pairs, in the file's order; keys are unique. The typed getters answer `None` for an absent key as for a value that is
/// of another type or does not fit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    pairs: Vec<(String, Value)>,
}

impl Metadata {
    /// Adds a pair at the end. Keys must stay unique: use [`set`](Self::set) for one that may be there already.
    pub fn push(&mut self, key: impl Into<String>, value: Value) {
        self.pairs.push((key.into(), value));
    }

    /// Puts a value in the place of the one that the key has, or adds the pair at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.pairs.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.push(key, value),
        }
    }

    /// Takes a pair out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let index = self.pairs.iter().position(|(name, _)| name == key)?;
        Some(self.pairs.remove(index).1)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    #[must_use]
    pub fn str(&self, key: &str) -> Option<&str> {
        if let Some(Value::String(text)) = self.get(key) { Some(text) } else { None }
    }

    /// Any integer type that fits.
    #[must_use]
    pub fn u32(&self, key: &str) -> Option<u32> {
        self.get(key)?.as_integer()?.try_into().ok()
    }

    /// Any integer type that fits.
    #[must_use]
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_integer()?.try_into().ok()
    }

    /// Either floating-point type.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a setting written with more digits than f32 has is still that setting")]
    pub fn f32(&self, key: &str) -> Option<f32> {
        match self.get(key)? {
            Value::F32(number) => Some(*number),
            Value::F64(number) => Some(*number as f32),
            _ => None,
        }
    }

    #[must_use]
    pub fn bool(&self, key: &str) -> Option<bool> {
        if let Some(Value::Bool(switch)) = self.get(key) { Some(*switch) } else { None }
    }

    #[must_use]
    pub fn strings(&self, key: &str) -> Option<&Strings> {
        if let Some(Value::Strings(strings)) = self.get(key) { Some(strings) } else { None }
    }

    #[must_use]
    pub fn f32s(&self, key: &str) -> Option<&[f32]> {
        if let Some(Value::F32s(numbers)) = self.get(key) { Some(numbers) } else { None }
    }

    #[must_use]
    pub fn i32s(&self, key: &str) -> Option<&[i32]> {
        if let Some(Value::I32s(numbers)) = self.get(key) { Some(numbers) } else { None }
    }

    #[must_use]
    pub fn bools(&self, key: &str) -> Option<&[bool]> {
        if let Some(Value::Bools(switches)) = self.get(key) { Some(switches) } else { None }
    }

    /// An array of any integer type, when all of its numbers fit.
    #[must_use]
    pub fn u32s(&self, key: &str) -> Option<Vec<u32>> {
        self.get(key)?.as_integers()?.into_iter().map(|n| u32::try_from(n).ok()).collect()
    }
}
