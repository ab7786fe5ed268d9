//! Behind a `PgBouncer` in transaction mode, with fewer connections to Postgres than the service has to it.

use crate::harness::*;
use std::sync::Arc;
use testkit::{Database, PgBouncer};

#[tokio::test]
async fn group_commits_duplicates_and_statuses_go_through_it() {
    let database = Database::new().await;
    let bouncer = PgBouncer::before(&database.url, 2).await;
    let service = Arc::new(Service::start(config(&bouncer.instead(&database.url))).await);
    let client = database.client().await;
    for round in 0..3 {
        let posting: Vec<_> = (0..60)
            .map(|number| {
                let service = service.clone();
                tokio::spawn(async move { service.zendesk(&mail(&format!("{round}-{number}"))).await })
            })
            .collect();
        for answer in posting {
            let id = answer.await.unwrap().email_id("accepted");
            assert_eq!(service.get(&format!("/v1/emails/{id}")).await.json()["email_id"], id);
        }
        let again = service.zendesk(&mail(&format!("{round}-7"))).await;
        again.email_id("duplicate");
    }
    assert_eq!(rows(&client).await, [180, 180, 180]);
    assert_whole(&client).await;
    assert_eq!(get(service.admin_address, "/readyz").await.status, 200);
}
