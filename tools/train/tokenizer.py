"""The model's tokenizer: byte pair encoding, learned by SentencePiece, stored in the format of llama2.c.

The file: int32 length of the longest piece; for every token, float32 score, int32 length, the piece's bytes.
"""

import io
import struct

BOS, EOS = 1, 2  # the beginning and the end of a text


def learn(lines, vocab_size):
    """Returns a SentencePieceProcessor that learned from lines of text, deterministically."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=vocab_size, byte_fallback=True,
        character_coverage=1.0, normalization_rule_name="identity", remove_extra_whitespaces=False,
        max_sentence_length=1 << 20, num_threads=1, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def export(processor, path):
    """Writes a SentencePieceProcessor as a tokenizer.bin."""
    pieces = [processor.id_to_piece(token).replace("\u2581", " ").encode() for token in range(processor.vocab_size())]
    with open(path, "wb") as file:
        file.write(struct.pack("<i", max(map(len, pieces))))
        for token, piece in enumerate(pieces):
            file.write(struct.pack("<fi", processor.get_score(token), len(piece)) + piece)


class Tokenizer:
    """Reads a tokenizer.bin and encodes text as SentencePiece and kvlane-llama2 do."""

    def __init__(self, path):
        data = path.read_bytes()
        self.tokens, self.scores = {}, []
        offset = 4
        while offset < len(data):
            score, length = struct.unpack_from("<fi", data, offset)
            self.tokens[data[offset + 8:offset + 8 + length]] = len(self.scores)
            self.scores.append(score)
            offset += 8 + length
        self.words = {}

    def encode(self, text):
        """Returns the tokens of text, BOS first. No piece spans the beginning of a word, so that words are encoded one by one."""
        tokens = [BOS]
        for word in text.split(" "):
            if word not in self.words:
                self.words[word] = self._encode_word(" " + word)
            tokens += self.words[word]
        return tokens

    def _encode_word(self, word):
        # Of the neighbours whose union is a piece, those with the best score merge first.
        pieces = [character.encode() for character in word]
        while True:
            unions = [(self.scores[self.tokens[a + b]], -i)
                      for i, (a, b) in enumerate(zip(pieces, pieces[1:])) if a + b in self.tokens]
            if not unions:
                break
            i = -max(unions)[1]
            pieces[i:i + 2] = [pieces[i] + pieces[i + 1]]
        return [token for piece in pieces for token in self._tokens_of(piece)]

    def _tokens_of(self, piece):
        if piece in self.tokens:
            return [self.tokens[piece]]
        return [self.tokens[b"<0x%02X>" % byte] for byte in piece]
