//! The two messages that are measured: an order of about 1 KB of JSON, and a list of 100 of them.

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

const SOURCE: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";

enum State { STATE_UNSPECIFIED = 0; STATE_OPEN = 1; STATE_PAID = 2; STATE_SHIPPED = 3; }

message Address { string street = 1; string city = 2; string country = 3; uint32 zip = 4; }
message Line { string sku = 1; int32 quantity = 2; double price = 3; }
message Event { google.protobuf.Timestamp time = 1; string what = 2; }

message Order {
  string name = 1;
  string customer_id = 2;
  int64 total_cents = 3;
  uint32 revision = 4;
  double weight = 5;
  bool express = 6;
  State state = 7;
  bytes checksum = 8;
  Address shipping_address = 9;
  repeated Line lines = 10;
  repeated Event events = 11;
  map<string, int64> counters = 12;
  google.protobuf.Timestamp create_time = 13;
  google.protobuf.Timestamp update_time = 14;
  repeated int32 scores = 15;
  repeated string tags = 16;
  oneof payment { string card = 17; string invoice = 18; }
  optional int32 priority = 19;
  string currency = 20;
  sint64 balance = 21;
  string note = 22;
}

message OrderList { repeated Order orders = 1; string next_page_token = 2; }
"#;

/// A descriptor, and one message of it in both forms.
pub(crate) struct Case {
    pub(crate) descriptor: MessageDescriptor,
    pub(crate) json: Vec<u8>,
    pub(crate) wire: Vec<u8>,
    /// The same, but half of the orders hold a repeated field in two places.
    pub(crate) tangled: Vec<u8>,
}

/// Both cases, and the files that declare them.
pub(crate) struct Cases {
    pub(crate) files: Vec<Bytes>,
    pub(crate) order: Case,
    pub(crate) list: Case,
}

struct Source;

impl FileResolver for Source {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "shop.proto" {
            File::from_source(name, SOURCE)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

impl Cases {
    pub(crate) fn new() -> Self {
        let mut resolver = ChainFileResolver::new();
        resolver.add(Source);
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        compiler
            .include_imports(true)
            .open_file("shop.proto")
            .expect("the source compiles");
        let files = compiler.file_descriptor_set().file;
        let files = files
            .iter()
            .map(|file| Bytes::from(file.encode_to_vec()))
            .collect();
        let pool = compiler.descriptor_pool();
        let orders: Vec<String> = (0..100).map(order).collect();
        let list = format!(
            r#"{{"orders":[{}],"nextPageToken":"CAISBggDEAQYBQ"}}"#,
            orders.join(",")
        );
        Self {
            files,
            order: case(&pool, "shop.Order", &orders[0]),
            list: case(&pool, "shop.OrderList", &list),
        }
    }
}

fn case(pool: &DescriptorPool, name: &str, json: &str) -> Case {
    let descriptor = pool.get_message_by_name(name).expect("it is declared");
    let mut input = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize(descriptor.clone(), &mut input).expect("it is valid");
    let wire = message.encode_to_vec();
    let tangled = if name == "shop.Order" {
        tangle(&wire)
    } else {
        tangle_list(&message)
    };
    Case {
        descriptor,
        json: json.as_bytes().to_vec(),
        wire,
        tangled,
    }
}

/// The first tag moves before everything else.
fn tangle(order: &[u8]) -> Vec<u8> {
    [&b"\x82\x01\x05first"[..], order].concat()
}

fn tangle_list(list: &DynamicMessage) -> Vec<u8> {
    let mut wire = Vec::new();
    let orders = list.get_field_by_name("orders").expect("it has orders");
    for (index, order) in orders.as_list().expect("a list").iter().enumerate() {
        let order = order.as_message().expect("a message").encode_to_vec();
        let order = if index.is_multiple_of(2) {
            tangle(&order)
        } else {
            order
        };
        prost::encoding::bytes::encode(1, &order, &mut wire);
    }
    wire
}

/// An order; each one is a little different.
fn order(n: usize) -> String {
    let states = ["STATE_OPEN", "STATE_PAID", "STATE_SHIPPED"];
    let payment = if n.is_multiple_of(2) {
        r#""card":"visa-4242""#
    } else {
        r#""invoice":"INV-2024-0017""#
    };
    format!(
        concat!(
            r#"{{"name":"shops/{shop}/orders/{id}","customerId":"c-{id:08}","totalCents":"{cents}","revision":{n},"#,
            r#""weight":{weight},"express":{express},"state":"{state}","#,
            r#""checksum":"3q2+78r+ur4AAQIDBAUGBwgJCgsMDQ4PEBESExQVFhc=","#,
            r#""shippingAddress":{{"street":"Via Garibaldi {n}","city":"Genova","country":"IT","zip":16124}},"#,
            r#""lines":[{{"sku":"SKU-{id}-A","quantity":{n},"price":19.99}},{{"sku":"SKU-{id}-B","quantity":2,"price":54.548196}}],"#,
            r#""events":[{{"time":"2024-05-06T07:08:09Z","what":"created"}},{{"time":"2024-05-06T09:10:11.250Z","what":"paid in full"}}],"#,
            r#""counters":{{"views":"{cents}","clicks":"12","returns":"1"}},"#,
            r#""createTime":"2024-05-06T07:08:09.123456Z","updateTime":"2024-06-07T08:09:10Z","#,
            r#""scores":[1,22,333,4444,55555,-6],"tags":["fragile","gift wrapped","priority-{n}"],{payment},"#,
            r#""priority":{n},"currency":"EUR","balance":"-{cents}","note":"Leave it at the door, please: the bell is out of order."}}"#,
        ),
        shop = n % 7,
        id = 1000 + n * 37,
        cents = 123_456 + n * 7919,
        n = n + 1,
        weight = format!("{}.{}", n + 1, 25 + n % 50),
        express = n.is_multiple_of(3),
        state = states[n % 3],
        payment = payment,
    )
}
