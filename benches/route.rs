//! Finding a route among 10, 1,000 and 10,000 templates.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Method;
use sabir::route::{Routes, RoutesBuilder};
use sabir::schema::HttpMethod;
use sabir::schema::template::Template;

/// Resources with the five standard methods, a verb, a nested collection and a file tree: eight templates each.
fn routes(templates: u32) -> Routes {
    let mut builder = RoutesBuilder::new();
    for resource in 0..templates.div_ceil(8) {
        let bindings = [
            (Method::GET, format!("/v1/things{resource}")),
            (Method::POST, format!("/v1/things{resource}")),
            (Method::GET, format!("/v1/{{name=things{resource}/*}}")),
            (Method::PATCH, format!("/v1/{{thing.name=things{resource}/*}}")),
            (Method::DELETE, format!("/v1/{{name=things{resource}/*}}")),
            (Method::POST, format!("/v1/{{name=things{resource}/*}}:move")),
            (
                Method::GET,
                format!("/v1/{{parent=things{resource}/*}}/parts/{{part}}"),
            ),
            (Method::GET, format!("/v1/files{resource}/{{path=**}}")),
        ];
        for (binding, (method, text)) in (0..).zip(bindings) {
            let Ok(template) = Template::parse(&text) else {
                continue;
            };
            if let Err(conflict) = builder.bind(&[], HttpMethod::Exact(method), &template, resource, binding)
            {
                panic!("{conflict}");
            }
        }
        if let Err(conflict) = builder.rpc(&[], &format!("/bench.v1.Things{resource}/Get"), resource) {
            panic!("{conflict}");
        }
    }
    builder.build()
}

fn find(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    for templates in [10, 1_000, 10_000] {
        let routes = routes(templates);
        let middle = templates / 16;
        for (name, method, path) in [
            ("literal", Method::GET, format!("/v1/things{middle}")),
            ("variable", Method::GET, format!("/v1/things{middle}/0123456789")),
            (
                "verb",
                Method::POST,
                format!("/v1/things{middle}/0123456789:move"),
            ),
            (
                "two variables",
                Method::GET,
                format!("/v1/things{middle}/0123456789/parts/7"),
            ),
            ("rest", Method::GET, format!("/v1/files{middle}/a/b/c%20d/e.txt")),
            ("unknown", Method::GET, "/v2/nothing/here".to_owned()),
        ] {
            group.bench_function(BenchmarkId::new(name, templates), |bencher| {
                bencher.iter(|| routes.find(Some("api.example.com"), &method, black_box(&path)));
            });
        }
        let path = format!("/bench.v1.Things{middle}/Get");
        group.bench_function(BenchmarkId::new("rpc", templates), |bencher| {
            bencher.iter(|| routes.find_rpc(Some("api.example.com"), black_box(&path)));
        });
    }
    group.finish();
}

criterion_group!(benches, find);
criterion_main!(benches);
