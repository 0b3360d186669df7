//! Files as people have them, and as they should not have them. Those under `tests/fixtures` were written by
//! the programs that usually write them.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::{Client, Service, Setup};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

async fn processed(client: &Client, query: &str, bytes: Vec<u8>) -> Value {
    let upload = client
        .post(&format!("/v1/files?type={query}"))
        .body(bytes)
        .send()
        .await;
    client.ended(&upload.expect(202).id()).await
}

#[track_caller]
fn result(task: &Value) -> &Value {
    assert_eq!(task["state"], "succeeded", "{task}");
    assert_eq!(task["result"]["status"], "success");
    &task["result"]
}

fn columns(sheet: &Value) -> Vec<&str> {
    let columns = sheet["columns"].as_array().unwrap();
    columns
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_table_with_semicolons_in_windows_1252() {
    let service = Setup::new().start().await;
    // The name lies about the type: only the bytes count.
    let task = processed(
        &service.client(),
        "process_file&filename=x.pdf",
        fixture("cities-cp1252.csv"),
    )
    .await;
    let result = result(&task);
    assert_eq!(result["format"]["kind"], "csv");
    assert_eq!(
        result["format"]["encoding"]
            .as_str()
            .unwrap()
            .to_lowercase(),
        "windows-1252"
    );
    assert_eq!(result["format"]["delimiter"], ";");
    assert_eq!(result["rows"], 4);
    assert_eq!(columns(result), ["Stadt", "Einwohner", "Fläche", "Notiz"]);
    let people = &result["columns"][1];
    assert_eq!(
        (people["empty"].as_u64(), people["distinct"].as_u64()),
        (Some(0), Some(4))
    );
    assert_eq!(people["max"].as_f64(), Some(1_512_491.0), "{people}");
    assert_eq!(result["columns"][3]["empty"].as_u64(), Some(1));
    let text = result["sample"].to_string();
    for expected in ["Köln", "Dom; Rhein", "zwei\\nZeilen", "5 €"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(result["problems"], json!([]));
}

#[tokio::test]
async fn rows_that_do_not_fit_are_named_and_harm_no_others() {
    let service = Setup::new().start().await;
    let bytes = b"a,b\n1,2\n3\n4,5,6\n7,8\n".to_vec();
    let task = processed(&service.client(), "process_file", bytes).await;
    let problems = result(&task)["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{problems:?}");
    for problem in problems {
        assert!(
            problem["row"].is_u64() && problem["message"].is_string(),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_workbook_with_two_sheets() {
    let service = Setup::new().start().await;
    let task = processed(&service.client(), "process_file", fixture("people.xlsx")).await;
    let result = result(&task);
    assert_eq!(result["format"]["kind"], "xlsx");
    let sheets = result["sheets"].as_array().unwrap();
    let names: Vec<_> = sheets
        .iter()
        .map(|sheet| sheet["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["people", "totals"]);
    assert_eq!(sheets[0]["rows"], 3);
    assert_eq!(columns(&sheets[0]), ["name", "age", "city"]);
    assert!(sheets[0]["sample"].to_string().contains("Søren"));
}

#[tokio::test]
async fn json_lines() {
    let service = Setup::new().start().await;
    let task = processed(&service.client(), "process_file", fixture("orders.jsonl")).await;
    let result = result(&task);
    assert_eq!(result["format"]["kind"], "jsonl");
    assert_eq!(result["rows"], 3);
    let names = columns(result);
    for name in ["id", "total", "paid", "note"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

/// The text of all chunks, which must follow each other and match their digests.
fn text(result: &Value) -> String {
    let chunks = result["chunks"].as_array().unwrap();
    assert_eq!(result["chunks_created"].as_u64(), Some(chunks.len() as u64));
    let mut all = String::new();
    for (index, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk["index"].as_u64(), Some(index as u64));
        let text = chunk["text"].as_str().unwrap();
        let digest = justonce::domain::digest::Sha256Digest::of(text.as_bytes());
        assert_eq!(chunk["sha256"], digest.to_string());
        assert!(chunk["end"].as_u64() > chunk["start"].as_u64(), "{chunk}");
        all.push_str(text);
        all.push('\n');
    }
    all
}

#[tokio::test]
async fn documents_become_text() {
    let service = Setup::new().start().await;
    let client = service.client();
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("report.pdf", &["speaks of herons", "speaks of otters"], &[]),
        (
            "report.docx",
            &["Smørrebrød", "second paragraph", "North"],
            &["<w:"],
        ),
        (
            "page.html",
            &["Tides", "The moon pulls the", "nearly"],
            &["never text", "<p>", "color"],
        ),
        ("notes.md", &["Garden", "spade", "dig --deep"], &[]),
    ];
    for (name, expected, absent) in cases {
        let task = processed(&client, "process_document", fixture(name)).await;
        let result = result(&task);
        let text = text(result);
        for words in expected {
            assert!(text.contains(words), "{words} in {name}: {text}");
        }
        for words in absent {
            assert!(!text.contains(words), "{words} in {name}: {text}");
        }
        assert!(result["words"].as_u64().unwrap() > 3, "{name}");
    }
    let pdf = processed(
        &client,
        "process_document&params=%7B%22chunk_size_chars%22%3A20%7D",
        fixture("report.pdf"),
    )
    .await;
    assert_eq!(result(&pdf)["pages"], 2);
    let pages = result(&pdf)["chunks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chunk| chunk["page"].as_u64());
    assert!(pages.clone().any(|page| page == Some(1)) && pages.clone().any(|page| page == Some(2)));
    let html = processed(
        &client,
        "process_document&params=%7B%22chunk_size_chars%22%3A500%7D",
        fixture("page.html"),
    )
    .await;
    assert_eq!(result(&html)["title"], "Tidal & lunar");
}

#[tokio::test]
async fn a_document_in_params_is_cut_into_chunks_that_overlap() {
    let service = Setup::new().start().await;
    let document = "word ".repeat(500);
    let params = json!({"document": document, "chunk_size_chars": 200, "overlap_chars": 40});
    let client = service.client();
    let task = json!({"type": "process_document", "params": params});
    let id = client.submit_keyless(&task).await.expect(202).id();
    let ended = client.ended(&id).await;
    let chunks = result(&ended)["chunks"].as_array().unwrap();
    assert!(chunks.len() > 10, "{}", chunks.len());
    for pair in chunks.windows(2) {
        assert!(pair[0]["text"].as_str().unwrap().chars().count() <= 200);
        let overlap =
            pair[0]["end"].as_u64().unwrap() as i64 - pair[1]["start"].as_u64().unwrap() as i64;
        assert!((0..=40).contains(&overlap), "{overlap}");
    }
}

#[track_caller]
fn failed_for_good(name: &str, task: &Value) {
    assert_eq!(task["state"], "failed", "{name}: {task}");
    assert_eq!(task["error"]["permanent"], true, "{name}: {task}");
    assert_eq!(task["attempt"], 1, "{name}: {task}");
    let message = task["error"]["message"].as_str().unwrap();
    assert!(message.len() > 5, "{name}: {message}");
    for internal in ["panicked", "src/", "/tmp/", "unwrap"] {
        assert!(!message.contains(internal), "{name}: {message}");
    }
}

async fn lives_on(service: &Service) {
    service.client().get("/readyz").send().await.expect(200);
    let done = processed(&service.client(), "process_file", b"a,b\n1,2\n".to_vec()).await;
    assert_eq!(done["state"], "succeeded");
}

/// A workbook whose only sheet unpacks to `size` bytes.
fn bomb(size: usize) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    let mut add = |name: &str, beginning: &str, zeros: usize| {
        archive.start_file(name, options).unwrap();
        archive.write_all(beginning.as_bytes()).unwrap();
        let block = vec![b' '; 1 << 20];
        for _ in 0..zeros >> 20 {
            archive.write_all(&block).unwrap();
        }
    };
    let types = "<?xml version=\"1.0\"?><Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\">\
        <Override PartName=\"/xl/workbook.xml\" ContentType=\"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml\"/></Types>";
    add("[Content_Types].xml", types, 0);
    let workbook = "<?xml version=\"1.0\"?><workbook xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\" \
        xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\"><sheets>\
        <sheet name=\"s\" sheetId=\"1\" r:id=\"r1\"/></sheets></workbook>";
    add("xl/workbook.xml", workbook, 0);
    let relations = "<?xml version=\"1.0\"?><Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">\
        <Relationship Id=\"r1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet\" \
        Target=\"worksheets/sheet1.xml\"/></Relationships>";
    add("xl/_rels/workbook.xml.rels", relations, 0);
    add(
        "xl/worksheets/sheet1.xml",
        "<?xml version=\"1.0\"?><worksheet><sheetData>",
        size,
    );
    archive.finish().unwrap().into_inner()
}

#[tokio::test]
async fn a_workbook_that_unpacks_without_end_fails_and_the_service_lives_on() {
    let service = Setup::new().start().await;
    let bytes = bomb(1 << 30);
    assert!(bytes.len() < 2 << 20, "{}", bytes.len());
    let task = processed(&service.client(), "process_file", bytes).await;
    failed_for_good("bomb", &task);
    lives_on(&service).await;
}

#[tokio::test]
async fn damaged_files_fail_clearly_and_the_service_lives_on() {
    let service = Setup::new().start().await;
    let client = service.client();
    let cut = |name: &str| {
        let mut bytes = fixture(name);
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let nested = format!(
        "%PDF-1.7\n1 0 obj\n{}{}\nendobj\n",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let cases = [
        ("process_document", "half a PDF", cut("report.pdf")),
        ("process_document", "half a DOCX", cut("report.docx")),
        (
            "process_document",
            "only the head of a PDF",
            b"%PDF-1.7\n".to_vec(),
        ),
        (
            "process_document",
            "nested without end",
            nested.into_bytes(),
        ),
        ("process_file", "half a workbook", cut("people.xlsx")),
        (
            "process_file",
            "only the head of a ZIP",
            b"PK\x03\x04".to_vec(),
        ),
    ];
    for (task_type, name, bytes) in cases {
        let task = processed(&client, task_type, bytes).await;
        // A PDF that is cut may still have text that a patient reader finds; all else must fail.
        if name != "half a PDF" || task["state"] == "failed" {
            failed_for_good(name, &task);
        }
    }
    lives_on(&service).await;
}

#[tokio::test]
async fn entities_of_a_document_are_not_followed() {
    let service = Setup::new().start().await;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    let document = "<?xml version=\"1.0\"?><!DOCTYPE d [<!ENTITY x SYSTEM \"file:///etc/passwd\">]>\
        <w:document xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/main\"><w:body><w:p><w:r>\
        <w:t>before &x; after</w:t></w:r></w:p></w:body></w:document>";
    let types = "<?xml version=\"1.0\"?><Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"/>";
    for (name, text) in [
        ("[Content_Types].xml", types),
        ("word/document.xml", document),
    ] {
        archive.start_file(name, options).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    let bytes = archive.finish().unwrap().into_inner();
    let task = processed(&service.client(), "process_document", bytes).await;
    assert!(!task.to_string().contains("root:"), "{task}");
}
