//! Values as parameters of a statement, each with its type in Postgres: a statement that names its types need not be prepared to
//! find them out. Rows go column by column: `unnest` reads arrays in a quarter of the time that it takes to read the same rows as JSON.

use jiff::Timestamp;
use serde_json::Value;
use std::borrow::Cow;
use tokio_postgres::types::{Json, ToSql, Type};

/// A value and its type.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// One column, an array in Postgres.
pub type Column<'a> = Box<dyn Typed + Send + 'a>;

/// A kind of value, and what Postgres calls one and many of it.
pub trait Kind {
    /// One.
    const ONE: Type;
    /// Many.
    const MANY: Type;
}

/// A value of a known kind.
pub trait Typed: ToSql + Sync {
    /// It, with its type.
    fn parameter(&self) -> Parameter<'_>;
}

impl<Value: Kind + ToSql + Sync> Typed for Value {
    fn parameter(&self) -> Parameter<'_> {
        (self, Self::ONE)
    }
}

macro_rules! kinds {
    ($($one:ident $many:ident: $($kind:ty),+;)+) => {$($(
        impl Kind for $kind {
            const ONE: Type = Type::$one;
            const MANY: Type = Type::$many;
        }
    )+)+};
}

kinds! {
    BOOL BOOL_ARRAY: bool;
    INT4 INT4_ARRAY: i32;
    INT8 INT8_ARRAY: i64;
    FLOAT8 FLOAT8_ARRAY: f64;
    TEXT TEXT_ARRAY: str, String, Cow<'_, str>;
    BYTEA BYTEA_ARRAY: [u8];
    JSONB JSONB_ARRAY: Value;
    TIMESTAMPTZ TIMESTAMPTZ_ARRAY: Timestamp;
}

impl<T> Kind for Json<T> {
    const ONE: Type = Type::JSONB;
    const MANY: Type = Type::JSONB_ARRAY;
}

impl<T: Kind + ?Sized> Kind for &T {
    const ONE: Type = T::ONE;
    const MANY: Type = T::MANY;
}

impl<T: Kind> Kind for Option<T> {
    const ONE: Type = T::ONE;
    const MANY: Type = T::MANY;
}

impl<T: Kind> Kind for [T] {
    const ONE: Type = T::MANY;
    const MANY: Type = T::MANY; // Postgres has no arrays of arrays, but arrays of more dimensions
}

impl<T: Kind> Kind for Vec<T> {
    const ONE: Type = T::MANY;
    const MANY: Type = T::MANY;
}

/// The values as parameters.
#[must_use]
pub fn typed<'a>(values: &[&'a dyn Typed]) -> Vec<Parameter<'a>> {
    values.iter().map(|value| value.parameter()).collect()
}

/// The column that holds this value of each row.
#[must_use]
pub fn column<'a, Row, Value>(rows: &[&'a Row], value: impl Fn(&'a Row) -> Value) -> Column<'a>
where
    Value: Kind + ToSql + Sync + Send + 'a,
{
    Box::new(rows.iter().map(|row| value(row)).collect::<Vec<Value>>())
}
