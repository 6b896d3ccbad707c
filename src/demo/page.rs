//! What `sabir demo` prints: things to try, each with what it shows.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// One thing to try.
struct Try {
    /// What it shows.
    shows: &'static str,
    /// The commands; `{at}` stands for the gateway's address.
    lines: &'static [&'static str],
}

/// Things to try that belong together.
struct Chapter {
    title: &'static str,
    tries: &'static [Try],
}

/// The whole page, in the order in which somebody new would go through it.
const CHAPTERS: &[Chapter] = &[
    Chapter {
        title: "REST and JSON",
        tries: &[
            Try {
                shows: "A book, on the path of its HTTP rule",
                lines: &["curl http://{at}/v1/shelves/1/books/7"],
            },
            Try {
                shows: "Query parameters fill the request, nested and repeated fields too",
                lines: &[
                    "curl 'http://{at}/v1/books?pageSize=2&filter.genres=GENRE_SCI_FI&filter.minPages=300'",
                ],
            },
            Try {
                shows: "response_body: the list alone",
                lines: &["curl http://{at}/v1/genres"],
            },
            Try {
                shows: "Adding a book: the body is the book, its shelf stands in the path",
                lines: &[
                    "curl http://{at}/v1/shelves/3/books?bookId=walden \\",
                    "     -d '{\"title\": \"Walden\", \"genre\": \"GENRE_NOVEL\", \"pages\": 352}'",
                ],
            },
            Try {
                shows: "PATCH changes what the body holds: the field mask is derived from it",
                lines: &["curl -X PATCH http://{at}/v1/shelves/1/books/7 -d '{\"rating\": 5}'"],
            },
            Try {
                shows: "A custom verb",
                lines: &["curl http://{at}/v1/shelves/1/books/8:move -d '{\"shelf\": \"shelves/2\"}'"],
            },
            Try {
                shows: "A method without an HTTP rule answers on its rpc path",
                lines: &["curl http://{at}/library.v1.Probe/Unbound -d '{\"number\": 42}'"],
            },
        ],
    },
    Chapter {
        title: "When something is wrong",
        tries: &[
            Try {
                shows: "The service's own error with its details: 404",
                lines: &["curl -i http://{at}/v1/shelves/1/books/99"],
            },
            Try {
                shows: "The gateway's: a field that is not there, a value that does not fit, a path that is not bound",
                lines: &[
                    "curl -i http://{at}/v1/books?pageSzie=2",
                    "curl -i http://{at}/v1/shelves/3/books -d '{\"title\": \"Emma\", \"pages\": 3.5}'",
                    "curl -i -X DELETE http://{at}/v1/genres",
                ],
            },
            Try {
                shows: "A deadline of 200 ms on a call that takes 2 s: 504",
                lines: &["curl -i -H 'grpc-timeout: 200m' 'http://{at}/v1/probe:wait?delay=2s'"],
            },
            Try {
                shows: "Any status: this one is 409",
                lines: &[
                    "curl -i 'http://{at}/v1/probe:fail?status.code=10&status.message=somebody+was+faster'",
                ],
            },
        ],
    },
    Chapter {
        title: "Streams",
        tries: &[
            Try {
                shows: "A server stream, a line a message, as the messages come",
                lines: &["curl -N 'http://{at}/v1/shelves/1/books:watch?interval=0.5s'"],
            },
            Try {
                shows: "The same as server-sent events, and as one JSON array",
                lines: &[
                    "curl -N -H 'accept: text/event-stream' http://{at}/v1/shelves/1/books:watch",
                    "curl -H 'accept: application/json' http://{at}/v1/shelves/1/books:watch",
                ],
            },
            Try {
                shows: "A stream that breaks after two messages says so",
                lines: &[
                    "curl -N 'http://{at}/v1/probe:failLater?after=2&status.code=14&status.message=gone'",
                ],
            },
            Try {
                shows: "A client stream: an array, or a value after the other",
                lines: &[
                    "curl http://{at}/v1/shelves/3/books:import \\",
                    "     -d '[{\"title\": \"Kim\"}, {\"title\": \"\"}, {\"title\": \"Ivanhoe\"}]'",
                ],
            },
            Try {
                shows: "Both ways: type a remark a line, {\"author\": \"you\", \"text\": \"hello\"}; ctrl-d ends",
                lines: &["curl -N -T - -X POST http://{at}/v1/rooms/7:chat"],
            },
        ],
    },
    Chapter {
        title: "Bodies that are not JSON",
        tries: &[
            Try {
                shows: "google.api.HttpBody: a picture; also in a browser",
                lines: &["curl -i http://{at}/v1/shelves/1/books/7/cover"],
            },
            Try {
                shows: "In pieces, down and up",
                lines: &[
                    "curl -N 'http://{at}/v1/shelves/1/books/7:download?chunkBytes=64' | head -3",
                    "curl -H 'content-type: text/plain' --data-binary @README.md \\",
                    "     http://{at}/v1/shelves/1/books/7:upload?language=en",
                ],
            },
        ],
    },
    Chapter {
        title: "gRPC, on the same port",
        tries: &[
            Try {
                shows: "What there is, from the gateway's own reflection",
                lines: &[
                    "grpcurl -plaintext {at} list",
                    "grpcurl -plaintext {at} describe library.v1.Library",
                ],
            },
            Try {
                shows: "A call, a stream, an error with its details",
                lines: &[
                    "grpcurl -plaintext -d '{\"name\": \"shelves/1/books/7\"}' {at} library.v1.Library/GetBook",
                    "grpcurl -plaintext -d '{\"parent\": \"shelves/1\"}' {at} library.v1.Library/WatchBooks",
                    "grpcurl -plaintext -d '{\"name\": \"shelves/1/books/99\"}' {at} library.v1.Library/GetBook",
                ],
            },
            Try {
                shows: "Metadata, both ways",
                lines: &[
                    "grpcurl -plaintext -v -H 'x-reader: you' -d '{\"trailing\": {\"x-end\": \"bye\"}}' \\",
                    "        {at} library.v1.Probe/Metadata",
                ],
            },
        ],
    },
    Chapter {
        title: "In a browser",
        tries: &[Try {
            shows: "A book, its cover, a watch that goes on",
            lines: &[
                "http://{at}/v1/shelves/1/books/7",
                "http://{at}/v1/shelves/1/books/7/cover",
                "http://{at}/v1/shelves/3/books:watch?follow=true",
            ],
        }],
    },
];

/// The page of what to try with curl, grpcurl and a browser.
///
/// `gateway` is where the gateway answers, `service` is where the example service behind it listens.
pub fn page(gateway: SocketAddr, service: SocketAddr) -> String {
    let address = gateway.to_string();
    let mut page = format!(
        "Sabir stands on {address} in front of a gRPC service on {service}\n\
         that it had never seen: it asked the service by reflection.\n"
    );
    for chapter in CHAPTERS {
        line(
            &mut page,
            format_args!("\n{}\n{}", chapter.title, "-".repeat(chapter.title.len())),
        );
        for Try { shows, lines } in chapter.tries {
            line(&mut page, format_args!("\n  {shows}:\n"));
            for command in *lines {
                line(
                    &mut page,
                    format_args!("    {}", command.replace("{at}", &address)),
                );
            }
        }
    }
    page.push_str("\nCtrl-C ends both.\n");
    page
}

/// Appends a line.
fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = writeln!(page, "{text}");
}
