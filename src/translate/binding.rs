//! temporary stand-in
use crate::route::Captures;
use crate::translate::json::{Mask, Transcoder};
use bytes::BytesMut;
#[derive(Clone, Debug)]
pub struct Binding {
    pub owned: Option<Mask>,
}
impl Binding {
    pub fn read(
        &self,
        _json: &Transcoder,
        _captures: &Captures,
        _query: Option<&str>,
        _out: &mut BytesMut,
    ) -> Result<(), std::io::Error> {
        Ok(())
    }
    pub fn patch_mask(
        &self,
        _query: Option<&str>,
        _body: &[u8],
        _out: &mut BytesMut,
    ) -> Result<(), std::io::Error> {
        Ok(())
    }
}
