//! Rows as parameters of one statement, column by column: `unnest` reads arrays in a quarter of the time that it takes to read the
//! same rows as JSON.

use tokio_postgres::types::ToSql;

/// One column, an array in Postgres.
pub type Column<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// The column that holds this value of each row.
#[must_use]
pub fn column<'a, Row, Value>(rows: &[&'a Row], value: impl Fn(&'a Row) -> Value) -> Column<'a>
where
    Value: ToSql + Sync + Send + 'a,
{
    Box::new(rows.iter().map(|row| value(row)).collect::<Vec<Value>>())
}
