//! Text to tokens and back by byte pair encoding.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

/// A vocabulary as llama2.c stores it: i32 longest piece, then for every token f32 score, i32 length, the piece's bytes.
pub struct Tokenizer {
    pieces: Vec<Vec<u8>>,
    scores: Vec<f32>,
    tokens: HashMap<Vec<u8>, u32>,
}

impl Tokenizer {
    pub const BOS: u32 = 1; // begins every text
    pub const EOS: u32 = 2;

    pub fn load(path: &Path, vocab_size: usize) -> Result<Self, Box<dyn Error>> {
        let bytes = crate::files::read(path)?;
        let mut rest = bytes.get(4..).unwrap_or_default();
        let mut take = |n: usize| {
            let taken = rest.get(..n)?;
            rest = &rest[n..];
            Some(taken)
        };
        let mut next = || {
            let score = f32::from_le_bytes(take(4)?.try_into().ok()?);
            let len = i32::from_le_bytes(take(4)?.try_into().ok()?);
            Some((score, take(usize::try_from(len).ok()?)?.to_vec()))
        };
        let all: Option<Vec<_>> = (0..vocab_size).map(|_| next()).collect();
        let all = all.ok_or_else(|| format!("{}: it has not {vocab_size} tokens", path.display()))?;
        let (scores, pieces): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let tokens = (0..).zip(&pieces).map(|(token, piece)| (piece.clone(), token)).collect();
        Ok(Self { pieces, scores, tokens })
    }

    /// Encodes a text, BOS first: its characters, then the best pair of neighbours merged, again and again.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Box<dyn Error>> {
        let mut tokens = vec![Self::BOS];
        if text.is_empty() {
            return Ok(tokens);
        }
        for character in format!(" {text}").chars() {
            // the vocabulary's words follow a space
            self.append_character(character, &mut tokens)?;
        }
        while let Some((at, token)) = self.best_pair(&tokens) {
            tokens.splice(at..at + 2, [token]);
        }
        Ok(tokens)
    }

    fn append_character(&self, character: char, tokens: &mut Vec<u32>) -> Result<(), Box<dyn Error>> {
        let text = character.to_string();
        if let Some(token) = self.tokens.get(text.as_bytes()) {
            tokens.push(*token);
            return Ok(());
        }
        for byte in text.bytes() {
            let piece = format!("<0x{byte:02X}>");
            let token = self.tokens.get(piece.as_bytes());
            tokens.push(
                *token.ok_or_else(|| format!("the tokenizer has no token for the prompt's byte {piece}"))?,
            );
        }
        Ok(())
    }

    /// The first of the pairs after BOS whose union has the best score: where it is, and the union.
    fn best_pair(&self, tokens: &[u32]) -> Option<(usize, u32)> {
        let mut best: Option<(usize, u32)> = None;
        for at in 1..tokens.len() - 1 {
            let union = [self.piece(tokens[at]), self.piece(tokens[at + 1])].concat();
            if let Some(token) = self.tokens.get(&union) {
                let score = |token: u32| self.scores[token as usize];
                if best.map_or(true, |(_, best)| score(*token) > score(best)) {
                    best = Some((at, *token));
                }
            }
        }
        best
    }

    /// What to write for a token, given the one before it.
    pub fn decode(&self, previous: u32, token: u32) -> Vec<u8> {
        let piece = self.piece(token);
        let text = match (byte_of(piece), piece.strip_prefix(b" ")) {
            (Some(byte), _) => vec![byte],
            (None, Some(rest)) if previous == Self::BOS => rest.to_vec(), // the space that encode put there
            _ => piece.to_vec(),
        };
        let is_unprintable =
            |byte: u8| byte.is_ascii_control() && !byte.is_ascii_whitespace() && byte != 0x0b;
        if matches!(text[..], [byte] if is_unprintable(byte)) {
            Vec::new()
        } else {
            text
        }
    }

    fn piece(&self, token: u32) -> &[u8] {
        &self.pieces[token as usize]
    }
}

/// The byte that a piece such as `<0x0A>` stands for.
fn byte_of(piece: &[u8]) -> Option<u8> {
    let digits = piece.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
