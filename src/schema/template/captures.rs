//! The values that a path gives to a template's variables.

use smallvec::SmallVec;

/// The values of a template's variables, decoded, from left to right. All of them share one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    text: String,
    /// Where each value ends in the text; it begins where the one before ends.
    ends: SmallVec<[usize; 4]>,
}

impl Captures {
    /// None yet, with room for values of so many bytes together.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            ends: SmallVec::new(),
        }
    }

    /// Adds the value that `write` appends.
    ///
    /// # Errors
    /// That of `write`; no value is added then.
    pub fn push_with<E>(&mut self, write: impl FnOnce(&mut String) -> Result<(), E>) -> Result<(), E> {
        let start = self.text.len();
        let written = write(&mut self.text);
        match &written {
            Ok(()) => self.ends.push(self.text.len()),
            Err(_) => self.text.truncate(start),
        }
        written
    }

    /// The value of the variable with this index.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(start..end)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Every value.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<V: AsRef<str>> FromIterator<V> for Captures {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        let mut captures = Self::default();
        for value in values {
            captures.text.push_str(value.as_ref());
            captures.ends.push(captures.text.len());
        }
        captures
    }
}
