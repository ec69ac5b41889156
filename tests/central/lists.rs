//! Lists follow every page, one ahead of the caller.

use crate::support::{
    client::{TOKEN, client},
    openapi::OpenApi,
    server::{Reply, Server},
};
use iot_enroll::central::Error;
use serde_json::{Value, json};

fn page(ids: &[&str], next: Option<String>) -> Value {
    let groups =
        ids.iter().map(|id| json!({ "id": id, "displayName": id, "type": "iot", "attestation": { "type": "x509" } }));
    let mut page = json!({ "value": groups.collect::<Vec<_>>() });
    if let Some(next) = next {
        page["nextLink"] = json!(next);
    }
    page
}

/// Three pages, linked as the service links them.
fn three_pages() -> Server {
    let server = Server::start([]);
    let link = |token: &str| {
        Some(format!("{}/api/enrollmentGroups?api-version=2022-07-31&%24skiptoken=%257B{token}%257D", server.url()))
    };
    server.then(Reply::json(200, &page(&["a", "b"], link("2"))));
    server.then(Reply::json(200, &page(&[], link("3"))));
    server.then(Reply::json(200, &page(&["c"], None)));
    server
}

#[tokio::test]
async fn a_list_follows_its_links_as_they_are_and_with_the_token() {
    let server = three_pages();
    let groups: Vec<_> = client(&server).enrollment_groups().list().try_collect().await.expect("groups");
    assert_eq!(groups.iter().map(|group| group.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let requests = server.requests();
    let targets: Vec<_> = requests.iter().map(|request| request.target.as_str()).collect();
    let first = "/api/enrollmentGroups?api-version=2022-07-31";
    assert_eq!(
        targets,
        [first, &format!("{first}&%24skiptoken=%257B2%257D"), &format!("{first}&%24skiptoken=%257B3%257D")]
    );
    for request in &requests {
        assert_eq!(request.header("authorization"), Some(TOKEN));
        assert_eq!(OpenApi::load().check_request("GET", &request.target, None, &[]), Ok(()));
    }
}

/// Waits until the server was asked so many times.
async fn asked(server: &Server, times: usize) {
    while server.requests().len() < times {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_next_page_is_asked_for_while_the_caller_works_on_this_one() {
    let server = three_pages();
    let mut groups = client(&server).enrollment_groups().list();
    assert!(server.requests().is_empty(), "nothing is asked for before the caller begins");
    groups.next().await.expect("an item").expect("a group");
    // Nothing polls the stream here.
    asked(&server, 2).await;
    assert_eq!(groups.try_collect::<Vec<_>>().await.expect("groups").len(), 2);
}

#[tokio::test]
async fn a_caller_that_stops_causes_no_request_but_the_next_pages() {
    let server = three_pages();
    let mut groups = client(&server).enrollment_groups().list();
    for _ in 0..2 {
        groups.next().await.expect("an item").expect("a group");
    }
    asked(&server, 2).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.requests().len(), 2, "one page ahead, not two");
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_the_request_that_is_ahead() {
    let (server, next) = (Server::start([]), |server: &Server| format!("{}/api/enrollmentGroups?t=2", server.url()));
    server.then(Reply::json(200, &page(&["a"], Some(next(&server)))));
    server.then(Reply::Silence);
    let mut groups = client(&server).enrollment_groups().list();
    groups.next().await.expect("an item").expect("a group");
    asked(&server, 2).await;
    drop(groups);
    // The server would wait for ever; the connection ends because the client lets go of it.
    while !server.silent_are_closed() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn pages_can_be_read_one_by_one() {
    let server = three_pages();
    let pages = client(&server).enrollment_groups().list_pages();
    let pages: Vec<Vec<_>> = pages.try_collect().await.expect("pages");
    let sizes: Vec<_> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [2, 0, 1]);
}

#[tokio::test]
async fn a_link_that_is_empty_or_null_ends_the_list() {
    for end in [json!(""), Value::Null] {
        let mut body = page(&["a"], None);
        body["nextLink"] = end;
        let server = Server::start([Reply::json(200, &body)]);
        let groups: Vec<_> = client(&server).enrollment_groups().list().try_collect().await.expect("groups");
        assert_eq!(groups.len(), 1);
    }
}

#[tokio::test]
async fn links_in_a_circle_end_in_an_error() {
    let server = Server::start([]);
    let link =
        |token| Some(format!("{}/api/enrollmentGroups?api-version=2022-07-31&%24skiptoken={token}", server.url()));
    for token in ["1", "2", "1"] {
        server.then(Reply::json(200, &page(&["a"], link(token))));
    }
    let mut list = client(&server).enrollment_groups().list();
    let mut found = 0;
    let error = loop {
        match list.next().await.expect("an end in an error") {
            Ok(_) => found += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NextLink { .. }), "{error}");
    assert_eq!((found, server.requests().len()), (2, 3));
    assert!(list.next().await.is_none(), "nothing follows an error");
}

#[tokio::test]
async fn a_page_that_fails_is_tried_again() {
    let server = Server::start([]);
    let next = format!("{}/api/enrollmentGroups?api-version=2022-07-31&%24skiptoken=2", server.url());
    server.then(Reply::json(200, &page(&["a"], Some(next))));
    server.then(Reply::lost());
    server.then(Reply::json(200, &page(&["b"], None)));
    let groups: Vec<_> = client(&server).enrollment_groups().list().try_collect().await.expect("groups");
    assert_eq!((groups.len(), server.requests().len()), (2, 3));
}

#[tokio::test]
async fn a_list_of_empty_pages_without_end_is_an_error() {
    let server = Server::start([]);
    for number in 0..1100 {
        let link = format!("{}/api/enrollmentGroups?api-version=2022-07-31&n={number}", server.url());
        server.then(Reply::json(200, &page(&[], Some(link))));
    }
    let error = client(&server).enrollment_groups().list().try_collect::<Vec<_>>().await.expect_err("no end");
    assert!(matches!(&error, Error::NextLink { problem, .. } if problem.contains("1000 pages were empty")), "{error}");
}
