use std::collections::HashMap;
use std::rc::Rc;

use lopdf::{DecompressError, Dictionary, Document, Error, Object, ObjectId, Stream};

use super::drawing::Drawing;
use super::font::Font;
use super::matrix::Matrix;
use super::{Failure, Text, too_much};

/// What all content streams together may unpack to, in bytes; a form counts each time that it is drawn.
const CONTENT_MAX_BYTES: usize = 512 * 1024 * 1024;
/// What one page's content may unpack to, in bytes.
const PAGE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Fonts that are kept; a document with more loads them again.
const FONTS_MAX: usize = 512;
/// Annotations of a page beyond these are left out.
const ANNOTATIONS_MAX: usize = 10_000;
/// How far `Resources` is looked for in the page tree.
const ANCESTORS_MAX: usize = 64;

/// The pages of a document as they are read.
pub struct Reading<'d> {
    document: &'d Document,
    fonts: HashMap<ObjectId, Rc<Font>>,
    budget: usize,
}

impl<'d> Reading<'d> {
    pub fn new(document: &'d Document) -> Self {
        Self {
            document,
            fonts: HashMap::new(),
            budget: CONTENT_MAX_BYTES,
        }
    }

    /// Adds the text of a page. A part of it that is damaged is left out.
    pub fn page(&mut self, id: ObjectId, text: &mut Text) -> Result<(), Failure> {
        let limit = self.budget.min(PAGE_MAX_BYTES);
        let content = match self.document.get_page_content_with_limit(id, limit) {
            Ok(content) => content,
            Err(Error::Decompress(DecompressError::MemoryLimitExceeded { .. })) => {
                return Err(too_much());
            }
            Err(_) => return Ok(()),
        };
        self.budget = self.budget.saturating_sub(content.len());
        let resources = self.page_resources(id);
        let appearances = self.appearances(id);
        let mut drawing = Drawing::new(self, text);
        drawing.run(&content, &resources, Matrix::IDENTITY)?;
        for (form, transform) in appearances {
            drawing.draw_form(form, &resources, transform)?;
        }
        drawing.finish()
    }

    /// What the page's annotations look like, form fields above all, and where they stand.
    fn appearances(&self, page: ObjectId) -> Vec<(&'d Stream, Matrix)> {
        let annotations = self
            .document
            .get_dictionary(page)
            .ok()
            .and_then(|page| self.object(page, b"Annots"));
        let Some(Object::Array(annotations)) = annotations else {
            return Vec::new();
        };
        annotations
            .iter()
            .take(ANNOTATIONS_MAX)
            .filter_map(|annotation| self.appearance(annotation))
            .collect()
    }

    fn appearance(&self, annotation: &'d Object) -> Option<(&'d Stream, Matrix)> {
        const HIDDEN_OR_NOT_SHOWN: i64 = 2 | 32;
        let annotation = self
            .document
            .dereference(annotation)
            .ok()?
            .1
            .as_dict()
            .ok()?;
        let flags = self
            .object(annotation, b"F")
            .and_then(|flags| flags.as_i64().ok())
            .unwrap_or(0);
        let is_popup = self
            .object(annotation, b"Subtype")
            .is_some_and(|kind| kind.as_name().is_ok_and(|kind| kind == b"Popup"));
        if flags & HIDDEN_OR_NOT_SHOWN != 0 || is_popup {
            return None;
        }
        let form = match self.object(self.dictionary(annotation, b"AP")?, b"N")? {
            Object::Stream(form) => form,
            Object::Dictionary(states) => {
                let state = self.object(annotation, b"AS")?.as_name().ok()?;
                self.object(states, state)?.as_stream().ok()?
            }
            _ => return None,
        };
        let corner = |object: Option<&'d Object>| {
            let corner = object?.as_array().ok()?;
            Some((
                f64::from(corner.first()?.as_float().ok()?),
                f64::from(corner.get(1)?.as_float().ok()?),
            ))
        };
        let (x, y) = corner(self.object(annotation, b"Rect"))?;
        let (left, bottom) = corner(self.object(&form.dict, b"BBox")).unwrap_or((0.0, 0.0));
        Some((form, Matrix::translation(x - left, y - bottom)))
    }

    /// The resources of the page, or of the nearest ancestor that has some.
    fn page_resources(&self, id: ObjectId) -> Vec<&'d Dictionary> {
        let mut node = self.document.get_dictionary(id).ok();
        for _ in 0..ANCESTORS_MAX {
            let Some(dictionary) = node else { break };
            if let Some(resources) = self.dictionary(dictionary, b"Resources") {
                return vec![resources];
            }
            node = self.dictionary(dictionary, b"Parent");
        }
        Vec::new()
    }

    pub fn dictionary(&self, parent: &'d Dictionary, key: &[u8]) -> Option<&'d Dictionary> {
        self.object(parent, key)?.as_dict().ok()
    }

    pub fn object(&self, parent: &'d Dictionary, key: &[u8]) -> Option<&'d Object> {
        let (_, object) = self.document.dereference(parent.get(key).ok()?).ok()?;
        Some(object)
    }

    /// The named entry of a kind of resource; those of a form come before those of its page.
    pub fn resource(
        &self,
        resources: &[&'d Dictionary],
        kind: &[u8],
        name: &[u8],
    ) -> Option<(Option<ObjectId>, &'d Object)> {
        resources.iter().rev().find_map(|resources| {
            let object = self.dictionary(resources, kind)?.get(name).ok()?;
            self.document.dereference(object).ok()
        })
    }

    pub fn font(&mut self, resources: &[&'d Dictionary], name: &[u8]) -> Option<Rc<Font>> {
        let (id, object) = self.resource(resources, b"Font", name)?;
        if let Some(font) = id.and_then(|id| self.fonts.get(&id)) {
            return Some(Rc::clone(font));
        }
        let font = Rc::new(Font::load(self.document, object.as_dict().ok()?));
        if self.fonts.len() >= FONTS_MAX {
            self.fonts.clear();
        }
        if let Some(id) = id {
            self.fonts.insert(id, Rc::clone(&font));
        }
        Some(font)
    }

    pub fn form_content(&mut self, form: &Stream) -> Result<Vec<u8>, Failure> {
        match form.get_plain_content_with_limit(self.budget.min(PAGE_MAX_BYTES)) {
            Ok(content) => {
                self.budget = self.budget.saturating_sub(content.len() + 256);
                Ok(content)
            }
            Err(Error::Decompress(DecompressError::MemoryLimitExceeded { .. })) => Err(too_much()),
            Err(_) => Ok(Vec::new()),
        }
    }
}
