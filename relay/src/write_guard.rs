//! May this amount be written without a person having looked? Pure.
//!
//! "Found nothing" is None and never a made-up amount: a default of 100 EUR once overwrote a correct 430 EUR unnoticed for weeks.

use crate::client::StoredAmount;
use rust_decimal::Decimal;
use shared::money::Amount;

/// The guard's limits.
#[derive(Debug, Clone, Copy)]
pub struct WriteGuard {
    /// Whether an amount below the stored one needs a person.
    pub hold_lower: bool,
}

/// Above this a person has to look, in euros.
const LARGEST: i64 = 500_000;
/// Below this confidence a person has to look.
pub const LEAST_CONFIDENCE: f64 = 0.75;

impl WriteGuard {
    /// Ok with the amount to write, or the reason for holding it. `decided`: a person has decided, so only what cannot be
    /// written at all is refused.
    ///
    /// # Errors
    /// The reason, without any value: it is stored and shown.
    pub fn check(
        self,
        new: Option<Amount>,
        confidence: Option<f64>,
        stored: StoredAmount,
        decided: bool,
    ) -> Result<Amount, String> {
        let Some(amount) = new else {
            return Err("the mail states no amount".into());
        };
        if decided {
            return Ok(amount);
        }
        if amount.to_decimal() > Decimal::from(LARGEST) {
            return Err(format!("the amount is over {LARGEST} EUR"));
        }
        if confidence.is_some_and(|confidence| confidence.is_nan() || confidence < LEAST_CONFIDENCE) {
            return Err(format!("the extraction's confidence is below {LEAST_CONFIDENCE}"));
        }
        match stored {
            StoredAmount::Unreadable => Err("the stored amount is not a plain amount of money".into()),
            StoredAmount::Known(stored) if self.hold_lower && amount < stored => {
                Err("the amount is lower than the stored one".into())
            }
            StoredAmount::Known(_) | StoredAmount::None => Ok(amount),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(
        new: Option<&str>,
        confidence: Option<f64>,
        stored: Option<&str>,
        decided: bool,
    ) -> Result<String, String> {
        let read = |text: &str| text.parse::<Amount>().unwrap();
        let stored = stored.map_or(StoredAmount::None, |text| StoredAmount::Known(read(text)));
        let guard = WriteGuard { hold_lower: true };
        guard.check(new.map(read), confidence, stored, decided).map(|amount| amount.to_string())
    }

    #[test]
    fn what_is_implausible_or_unsure_is_held_and_a_persons_decision_passes() {
        assert_eq!(check(Some("10"), Some(0.75), Some("10"), false), Ok("10.00".into()));
        assert_eq!(check(Some("10"), None, None, false), Ok("10.00".into()));
        assert_eq!(check(Some("0"), None, None, false), Ok("0.00".into()));
        assert_eq!(check(Some("500000"), None, None, false), Ok("500000.00".into()));
        assert!(check(None, None, None, false).unwrap_err().contains("no amount"));
        assert!(check(None, None, None, true).is_err());
        assert!(check(Some("500000.01"), None, None, false).unwrap_err().contains("500000"));
        assert!(check(Some("10"), Some(0.74), None, false).unwrap_err().contains("confidence"));
        assert!(check(Some("10"), Some(f64::NAN), None, false).is_err());
        assert!(check(Some("9.99"), None, Some("10"), false).unwrap_err().contains("lower"));
        assert_eq!(check(Some("9.99"), Some(0.1), Some("10"), true), Ok("9.99".into()));
        assert!(
            WriteGuard { hold_lower: false }
                .check("1".parse().ok(), None, StoredAmount::Unreadable, false)
                .is_err()
        );
    }
    fn cents(most: i64) -> impl Strategy<Value = Amount> {
        (0..=most).prop_map(|cents| Decimal::new(cents, 2).to_string().parse().unwrap())
    }

    proptest! {
        /// What passes is the mail's own amount, within every bound; and nobody but a person gets past one.
        #[test]
        fn what_passes_is_the_mails_amount_within_every_bound(
            new in prop::option::of(cents(100_000_000)),
            confidence in prop::option::of(prop_oneof![0.0..1.0, Just(f64::NAN), Just(-1.0)]),
            stored in prop_oneof![Just(StoredAmount::None), Just(StoredAmount::Unreadable), cents(100_000_000).prop_map(StoredAmount::Known)],
            hold_lower: bool,
            decided: bool,
        ) {
            let passed = WriteGuard { hold_lower }.check(new, confidence, stored, decided);
            prop_assert_eq!(passed.as_ref().ok(), passed.as_ref().ok().and(new.as_ref()));
            prop_assert_eq!(new.is_some() && decided, passed.is_ok() && decided);
            if let (Ok(amount), false) = (passed, decided) {
                prop_assert!(amount.to_decimal() <= Decimal::from(LARGEST));
                prop_assert!(confidence.is_none_or(|confidence| confidence >= LEAST_CONFIDENCE));
                prop_assert!(stored != StoredAmount::Unreadable);
                prop_assert!(!hold_lower || stored.known().is_none_or(|stored| amount.to_decimal() >= stored.to_decimal()));
            }
        }
    }
}
