//! Amounts as programs write them.

use rust_decimal::Decimal;
use shared::money::{Amount, AmountError};

/// An amount is what its digits say, to the cent, and survives each of its forms.
pub(crate) fn amount(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = text.parse::<Amount>();
    assert_eq!(read.map(cents), reference(&text), "{text}");
    if let Ok(amount) = read {
        assert_eq!(amount.to_string().parse(), Ok(amount), "as text");
        assert_eq!(Amount::from_f64(amount.to_f64()), Some(amount), "as MongoDB holds it");
        let json = serde_json::to_string(&amount).unwrap();
        assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount, "as JSON");
    }
    // Any double that MongoDB may hold.
    if let Some(bits) = data.first_chunk() {
        let value = f64::from_bits(u64::from_le_bytes(*bits));
        let nearest = Amount::from_f64(value);
        assert!(nearest.is_none_or(|amount| (amount.to_f64() - value).abs() < 0.006), "{value}: {nearest:?}");
        let is_amount = (0.0..=999_999_999_999.99).contains(&value);
        assert!(nearest.is_some() || !is_amount, "{value} is an amount");
    }
    if let Ok(value) = text.parse::<Decimal>()
        && let Ok(amount) = Amount::from_decimal(value)
    {
        assert_eq!(amount.to_decimal(), value, "the same value");
    }
}

fn cents(amount: Amount) -> u128 {
    let mut value = amount.to_decimal();
    value.rescale(2);
    u128::try_from(value.mantissa()).unwrap()
}

/// Digit by digit, in the order in which the errors are looked for.
fn reference(text: &str) -> Result<u128, AmountError> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mut whole, mut cents, mut places) = (0_u128, 0_u128, None);
    let (mut digits, mut beyond, mut nonzero) = (0, false, false);
    for byte in text.bytes() {
        match (byte, places) {
            (b'0'..=b'9', _) => {
                let digit = u128::from(byte - b'0');
                digits += 1;
                nonzero |= digit != 0;
                match places {
                    None => whole = whole.saturating_mul(10).saturating_add(digit),
                    Some(0) => cents += digit * 10,
                    Some(1) => cents += digit,
                    Some(_) => beyond |= digit != 0,
                }
                places = places.map(|places: u32| places + 1);
            }
            (b'.', None) if digits > 0 => places = Some(0),
            _ => return Err(AmountError::NotANumber),
        }
    }
    if digits == 0 || places == Some(0) {
        return Err(AmountError::NotANumber);
    }
    if negative && nonzero {
        return Err(AmountError::Negative);
    }
    if whole > 999_999_999_999 {
        return Err(AmountError::TooLarge);
    }
    if beyond { Err(AmountError::TooPrecise) } else { Ok(whole * 100 + cents) }
}
