//! Exact amounts of money in euros: 0 to 999,999,999,999.99 with at most two decimals.
//!
//! Owns the bounds and the conversions. An amount is never computed or read through a float; only MongoDB stores a BSON double,
//! because the portal that reads the documents sums plain numbers.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An amount in euros within the bounds of `numeric(14,2)`; displays and serialises as `1234.56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Amount(Decimal);

/// Why a text or number is not an amount; the text is fit for a client's eyes and repeats nothing of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a plain decimal number (digits, optionally a point and more digits).
    #[error("must be a plain decimal number such as 1234.56")]
    NotANumber,
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// A third decimal that is not zero.
    #[error("must have at most two decimals")]
    TooPrecise,
    /// Above the largest amount that the ledger can hold.
    #[error("must be at most 999999999999.99")]
    TooLarge,
}

impl Amount {
    /// The largest amount: 999,999,999,999.99.
    pub const MAX: Amount = Amount(Decimal::from_parts(0x107A_3FFF, 0x5AF3, 0, false, 2));

    /// Checks the bounds of a decimal.
    ///
    /// # Errors
    /// [`AmountError`] for a negative, too large or too precise value.
    pub fn from_decimal(value: Decimal) -> Result<Amount, AmountError> {
        let value = value.normalize();
        if value.is_sign_negative() && !value.is_zero() {
            return Err(AmountError::Negative);
        }
        if value > Amount::MAX.0 {
            return Err(AmountError::TooLarge);
        }
        if value.scale() > 2 {
            return Err(AmountError::TooPrecise);
        }
        let mut value = value.abs();
        value.rescale(2);
        Ok(Amount(value))
    }

    /// The nearest double, for BSON: exact to the cent in the whole range, since 14 digits fit a double's 15.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        // A decimal's own text always parses as a double.
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// The cent value that a stored double stands for; None when it is no amount (negative, NaN, too large).
    #[must_use]
    pub fn from_f64(value: f64) -> Option<Amount> {
        if !value.is_finite() || value.abs() > 1e12 {
            return None;
        }
        Amount::from_decimal(format!("{value:.2}").parse().ok()?).ok()
    }

    /// The decimal value.
    #[must_use]
    pub fn to_decimal(self) -> Decimal {
        self.0
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    /// Reads `1234`, `1234.5`, `1234.56`; trailing zeros beyond two decimals are no loss and pass.
    fn from_str(text: &str) -> Result<Amount, AmountError> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || !all_digits(decimals) {
            return Err(AmountError::NotANumber);
        }
        let (whole, decimals) = (whole.trim_start_matches('0'), decimals.trim_end_matches('0'));
        if negative && !(whole.is_empty() && decimals.is_empty()) {
            return Err(AmountError::Negative);
        }
        if whole.len() > 12 {
            return Err(AmountError::TooLarge);
        }
        if decimals.len() > 2 {
            return Err(AmountError::TooPrecise);
        }
        let value =
            Decimal::from_str(&format!("0{whole}.{decimals:0<2}")).map_err(|_| AmountError::NotANumber)?;
        Amount::from_decimal(value)
    }
}

impl TryFrom<String> for Amount {
    type Error = AmountError;

    fn try_from(text: String) -> Result<Amount, AmountError> {
        text.parse()
    }
}

impl From<Amount> for String {
    fn from(amount: Amount) -> String {
        amount.to_string()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.2}", self.0)
    }
}

/// Amounts are personal data: a `Debug` print never shows one.
impl fmt::Debug for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Amount(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bounds_and_shapes_are_told_apart() {
        let read = |text: &str| text.parse::<Amount>().map(|amount| amount.to_string());
        assert_eq!(read("1234.5"), Ok("1234.50".into()));
        assert_eq!(read("007.100"), Ok("7.10".into()));
        assert_eq!(read("-0"), Ok("0.00".into()));
        assert_eq!(read("999999999999.99"), Ok("999999999999.99".into()));
        assert_eq!(read("1000000000000"), Err(AmountError::TooLarge));
        assert_eq!(read(&"9".repeat(400)), Err(AmountError::TooLarge));
        assert_eq!(read("1.001"), Err(AmountError::TooPrecise));
        assert_eq!(read("-0.01"), Err(AmountError::Negative));
        for text in ["", ".5", "5.", "1e3", "1,5", " 1", "NaN", "+1", "0x1", "١"] {
            assert_eq!(read(text), Err(AmountError::NotANumber), "{text}");
        }
        assert_eq!(Amount::MAX.to_string(), "999999999999.99");
    }

    proptest! {
        #[test]
        fn every_amount_survives_text_and_double(cents in 0_i64..=99_999_999_999_999) {
            let amount = Amount::from_decimal(Decimal::new(cents, 2)).unwrap();
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
            prop_assert_eq!(Amount::from_f64(amount.to_f64()), Some(amount));
        }
    }
}
