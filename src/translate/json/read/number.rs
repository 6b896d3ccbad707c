//! Numbers. The usual forms are parsed digit by digit; the rest of the JSON grammar, quoted or bare, is taken slowly.

use super::Reader;
use super::failure::Fail;

/// Sign and magnitude.
type Signed = (bool, u64);

const WHOLE: &str = "a whole number";

impl Reader<'_> {
    #[inline]
    pub(super) fn int32(&mut self, kind: &'static str) -> Result<i32, Fail> {
        let start = self.at;
        let value = self.int64(kind)?;
        i32::try_from(value).map_err(|_| self.out_of_range(start, kind))
    }

    #[inline]
    pub(super) fn int64(&mut self, kind: &'static str) -> Result<i64, Fail> {
        match self.small() {
            Some(value) => Ok(value),
            None => self.unusual(kind, |(negative, size)| {
                if negative {
                    0_i64.checked_sub_unsigned(size)
                } else {
                    i64::try_from(size).ok()
                }
            }),
        }
    }

    #[inline]
    pub(super) fn uint32(&mut self, kind: &'static str) -> Result<u32, Fail> {
        let start = self.at;
        let value = self.uint64(kind)?;
        u32::try_from(value).map_err(|_| self.out_of_range(start, kind))
    }

    #[inline]
    pub(super) fn uint64(&mut self, kind: &'static str) -> Result<u64, Fail> {
        let start = self.at;
        match self.small().map(u64::try_from) {
            Some(Ok(value)) => Ok(value),
            Some(Err(_)) => Err(self.out_of_range(start, kind)),
            // `-0` is 0.
            None => self.unusual(kind, |(negative, size)| (!negative || size == 0).then_some(size)),
        }
    }

    /// Passes an integer of at most 18 digits, quoted or bare; stays where it is if there is something else, or if the
    /// text ends soon.
    #[inline]
    fn small(&mut self) -> Option<i64> {
        self.token();
        let window = self.text.get(self.at..)?.first_chunk::<24>()?;
        let quoted = window[0] == b'"';
        let negative = window[usize::from(quoted)] == b'-';
        let first = usize::from(quoted) + usize::from(negative);
        let (mut at, mut value) = (first, 0_i64);
        let next = loop {
            let byte = window[at];
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 || at >= 22 {
                break byte;
            }
            value = value.wrapping_mul(10).wrapping_add(digit.into());
            at += 1;
        };
        let count = at - first;
        let ends = if quoted {
            next == b'"'
        } else {
            !matches!(next, b'.' | b'e' | b'E')
        };
        if count == 0 || count > 18 || (count > 1 && window[first] == b'0') || !ends {
            return None;
        }
        self.at += at + usize::from(quoted);
        Some(if negative { -value } else { value })
    }

    /// `1.0`, `1e3`, nineteen digits, escapes, or no integer at all.
    #[cold]
    #[inline(never)]
    fn unusual<T>(&mut self, kind: &'static str, fit: impl Fn(Signed) -> Option<T>) -> Result<T, Fail> {
        let start = self.at;
        let end;
        let found = match self.peek() {
            b'"' => {
                let content = self.quoted(WHOLE)?;
                end = self.at;
                decimal(self.content(content)).map(|number| number.whole())
            }
            b'-' | b'0'..=b'9' => {
                end = self.number_end();
                decimal(&self.text[start..end]).map(|number| number.whole())
            }
            _ => return Err(self.mismatch(WHOLE)),
        };
        self.at = end;
        match found {
            Some(Whole::Value(value)) => fit(value).ok_or_else(|| self.out_of_range(start, kind)),
            Some(Whole::TooLarge) => Err(self.out_of_range(start, kind)),
            Some(Whole::Fraction) | None => Err(self.not_at(start, WHOLE)),
        }
    }

    fn number_end(&self) -> usize {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let inside = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        self.at + rest.iter().take_while(inside).count()
    }

    #[inline]
    pub(super) fn double(&mut self) -> Result<f64, Fail> {
        if self.token() == b'"' {
            return self.quoted_double(|text| text.parse().ok(), "double");
        }
        let start = self.at;
        let number = self.decimal()?;
        if number.exact && number.digits <= 1 << 53 && (-22..=22).contains(&number.scale) {
            // Both factors are exact, so the one rounding is the right one (Clinger's fast path).
            #[expect(clippy::cast_precision_loss, reason = "at most 53 bits")]
            let digits = number.digits as f64;
            let power = TEN[number.scale.unsigned_abs() as usize];
            let value = if number.scale < 0 {
                digits / power
            } else {
                digits * power
            };
            return Ok(if number.negative { -value } else { value });
        }
        self.slow(start, "double", |text| {
            text.parse().ok().filter(|value: &f64| value.is_finite())
        })
    }

    #[inline]
    pub(super) fn float(&mut self) -> Result<f32, Fail> {
        if self.token() == b'"' {
            return self.quoted_double(|text| text.parse().ok(), "float");
        }
        let start = self.at;
        let number = self.decimal()?;
        if number.exact && number.digits <= 1 << 24 && (-10..=10).contains(&number.scale) {
            #[expect(clippy::cast_precision_loss, reason = "at most 24 bits")]
            let digits = number.digits as f32;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "powers up to 10 are exact in single precision"
            )]
            let power = TEN[number.scale.unsigned_abs() as usize] as f32;
            let value = if number.scale < 0 {
                digits / power
            } else {
                digits * power
            };
            return Ok(if number.negative { -value } else { value });
        }
        self.slow(start, "float", |text| {
            text.parse().ok().filter(|value: &f32| value.is_finite())
        })
    }

    /// The number that was just passed, by the standard library.
    #[inline(never)]
    fn slow<T>(
        &self,
        start: usize,
        kind: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Fail> {
        let text = std::str::from_utf8(&self.text[start..self.at]).ok();
        text.and_then(parse).ok_or_else(|| self.out_of_range(start, kind))
    }

    /// A number in quotes, or one of the three words.
    #[inline(never)]
    fn quoted_double<T: Float>(
        &mut self,
        parse: impl Fn(&str) -> Option<T>,
        kind: &'static str,
    ) -> Result<T, Fail> {
        let start = self.at;
        let quoted = self.quoted("a number")?;
        let content = self.content(quoted);
        match content {
            b"NaN" => return Ok(T::NAN),
            b"Infinity" => return Ok(T::INFINITY),
            b"-Infinity" => return Ok(T::NEG_INFINITY),
            _ => {}
        }
        let text = decimal(content).and_then(|_| std::str::from_utf8(content).ok());
        let Some(value) = text.and_then(parse) else {
            return Err(self.not_at(start, "a number"));
        };
        if value.is_infinite() {
            Err(self.out_of_range(start, kind))
        } else {
            Ok(value)
        }
    }

    /// Passes a bare number and takes its digits.
    #[inline]
    fn decimal(&mut self) -> Result<Digits, Fail> {
        let start = self.at;
        let negative = self.peek() == b'-';
        self.at += usize::from(negative);
        let first = self.at;
        let mut number = Digits {
            negative,
            digits: 0,
            scale: 0,
            exact: true,
        };
        self.digits(&mut number.digits);
        let whole = self.at - first;
        if whole == 0 || (whole > 1 && self.text[first] == b'0') {
            return Err(self.no_number(start));
        }
        let mut count = whole;
        if self.peek() == b'.' {
            self.at += 1;
            let point = self.at;
            self.digits(&mut number.digits);
            let decimals = self.at - point;
            if decimals == 0 {
                return Err(self.no_number(start));
            }
            count += decimals;
            number.scale = i32::try_from(decimals).map_or(i32::MIN, |decimals| -decimals);
        }
        number.exact = count <= 19;
        if matches!(self.peek(), b'e' | b'E') {
            self.exponent(start, &mut number)?;
        }
        Ok(number)
    }

    #[inline]
    fn digits(&mut self, sum: &mut u64) {
        while let Some(&byte) = self.text.get(self.at) {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            *sum = sum.wrapping_mul(10).wrapping_add(digit.into());
            self.at += 1;
        }
    }

    fn exponent(&mut self, start: usize, number: &mut Digits) -> Result<(), Fail> {
        self.at += 1;
        let sign = self.peek();
        self.at += usize::from(matches!(sign, b'+' | b'-'));
        let first = self.at;
        let mut power = 0;
        self.digits(&mut power);
        let count = self.at - first;
        if count == 0 {
            return Err(self.no_number(start));
        }
        match i32::try_from(power).ok().filter(|_| count <= 9) {
            Some(power) => {
                let power = if sign == b'-' { -power } else { power };
                number.scale = number.scale.saturating_add(power);
            }
            None => number.exact = false,
        }
        Ok(())
    }

    /// Passes a number whose value nobody wants.
    pub(super) fn skip_number(&mut self) -> Result<(), Fail> {
        self.decimal().map(|_| ())
    }

    #[cold]
    fn no_number(&mut self, start: usize) -> Fail {
        self.at = start;
        self.mismatch("a number")
    }
}

struct Digits {
    negative: bool,
    digits: u64,
    /// The power of ten to multiply with.
    scale: i32,
    /// Nothing was lost in `digits` and `scale`.
    exact: bool,
}

const TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// What the two widths share.
trait Float: Copy {
    const NAN: Self;
    const INFINITY: Self;
    const NEG_INFINITY: Self;
    fn is_infinite(self) -> bool;
}

impl Float for f64 {
    const NAN: Self = Self::NAN;
    const INFINITY: Self = Self::INFINITY;
    const NEG_INFINITY: Self = Self::NEG_INFINITY;
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

impl Float for f32 {
    const NAN: Self = Self::NAN;
    const INFINITY: Self = Self::INFINITY;
    const NEG_INFINITY: Self = Self::NEG_INFINITY;
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

/// A number of the JSON grammar in its parts.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Far out ones are cut: no number of the text's length changes its meaning by that.
    exponent: i64,
}

enum Whole {
    Value(Signed),
    TooLarge,
    Fraction,
}

/// The parts of a text that is a JSON number and nothing else.
fn decimal(text: &[u8]) -> Option<Decimal<'_>> {
    let (negative, rest) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, rest) = split_digits(rest);
    if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return None;
    }
    let (fraction, rest) = match rest.strip_prefix(b".") {
        Some(rest) => match split_digits(rest) {
            ([], _) => return None,
            parts => parts,
        },
        None => (&[][..], rest),
    };
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', rest @ ..] => {
            let (minus, digits) = match rest {
                [b'-', digits @ ..] => (true, digits),
                [b'+', digits @ ..] | digits => (false, digits),
            };
            let (digits, after) = split_digits(digits);
            if digits.is_empty() || !after.is_empty() {
                return None;
            }
            let add = |sum: i64, digit: &u8| (sum * 10 + i64::from(digit - b'0')).min(1 << 50);
            let power = digits.iter().fold(0, add);
            if minus { -power } else { power }
        }
        _ => return None,
    };
    Some(Decimal {
        negative,
        whole,
        fraction,
        exponent,
    })
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

impl Decimal<'_> {
    fn whole(&self) -> Whole {
        let digits = || self.whole.iter().chain(self.fraction);
        let last = digits().enumerate().filter(|(_, digit)| **digit != b'0').last();
        let Some((last, _)) = last else {
            return Whole::Value((self.negative, 0));
        };
        let leading = digits().take_while(|&&digit| digit == b'0').count();
        // Digits before the point, once the exponent has moved it.
        let point = i64::try_from(self.whole.len())
            .unwrap_or(i64::MAX)
            .saturating_add(self.exponent);
        let count = |index: usize| i64::try_from(index).unwrap_or(i64::MAX);
        if count(last) >= point {
            return Whole::Fraction;
        }
        if point - count(leading) > 20 {
            return Whole::TooLarge;
        }
        let mut value = 0_u128;
        for digit in digits().take(last + 1).skip(leading) {
            value = value * 10 + u128::from(digit - b'0');
        }
        for _ in count(last) + 1..point {
            value *= 10;
        }
        u64::try_from(value).map_or(Whole::TooLarge, |value| Whole::Value((self.negative, value)))
    }
}
