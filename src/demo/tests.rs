//! The page and the ports. The service itself is tried through the gateway by the integration tests.

use super::*;

#[test]
fn a_taken_port_leads_to_the_next() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let wanted = taken.local_addr().unwrap();
    let found = free_port(wanted).unwrap();
    assert!(found.port() > wanted.port(), "{found} after {wanted}");
}

#[test]
fn the_page_names_the_gateway_and_leaves_no_gap() {
    let page = page(
        "127.0.0.1:8081".parse().unwrap(),
        "127.0.0.1:40000".parse().unwrap(),
    );
    assert!(page.contains("curl http://127.0.0.1:8081/v1/shelves/1/books/7\n"));
    assert!(page.contains("127.0.0.1:40000"));
    assert!(!page.contains("{at}"));
}
