//! Conditions in CEL, the Common Expression Language: compiled when the configuration is, and bounded in what they cost.
//!
//! `request` is a map of `method`, `path`, `query`, `host`, `scheme`, `address` and `headers`; `identity` one of
//! `principal`, `issuer`, `auth`, `scopes`, `roles` and `claims`; `message` has the fields of the first message by their
//! names in its file. What can't be evaluated does not hold.

use super::facts::Facts;

#[cfg(feature = "cel")]
mod cel;

/// The longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 4096;

/// A compiled condition.
#[derive(Clone, Debug)]
pub struct Condition {
    text: String,
    #[cfg(feature = "cel")]
    program: cel::Compiled,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

impl Condition {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it and where, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_EXPRESSION_BYTES {
            return Err(format!("it is longer than {MAX_EXPRESSION_BYTES} bytes"));
        }
        Self::compile(text)
    }

    #[cfg(feature = "cel")]
    fn compile(text: &str) -> Result<Self, String> {
        Ok(Self {
            text: text.to_owned(),
            program: cel::Compiled::new(text)?,
        })
    }

    #[cfg(not(feature = "cel"))]
    fn compile(_: &str) -> Result<Self, String> {
        Err("this gateway was built without CEL (its feature `cel`)".to_owned())
    }

    /// The fields of the message that it reads; nothing if it reads no message.
    pub fn fields(&self) -> Option<&[String]> {
        #[cfg(feature = "cel")]
        return self.program.fields();
        #[cfg(not(feature = "cel"))]
        None
    }

    /// Whether it is true. An error, such as a claim that is not there, makes it false.
    pub fn holds(&self, facts: Facts<'_>) -> bool {
        #[cfg(feature = "cel")]
        return self.program.holds(&self.text, facts);
        #[cfg(not(feature = "cel"))]
        {
            let _ = facts;
            false
        }
    }
}
