//! A database as an earlier version of this system has left it, for the tests of an upgrade.

use crate::Database;
use refinery::Target;

mod embedded {
    refinery::embed_migrations!("../../sql");
}

impl Database {
    /// A database with the first migrations, up to this one.
    pub async fn at_version(version: i32) -> Database {
        let database = Database::empty().await;
        let mut client = database.client().await;
        let runner = embedded::migrations::runner().set_target(Target::Version(version));
        runner.run_async(&mut client).await.expect("the migrations run");
        database
    }
}
