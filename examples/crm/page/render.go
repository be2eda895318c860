package page

import (
	"errors"
	"io"
)

type language struct{}

// New parses all templates and both catalogues. A template that does not parse, or a key that a
// template uses and a catalogue lacks, is an error.
func New(opts *Options) (*Renderer, error) { return nil, errors.New("page: not built") }

// Page writes a whole page around content: a pointer to SignIn, Home, List, Detail, Form, Reveal, Log,
// Event, Backups, Error or Search. It is rendered completely before the first byte is written.
func (r *Renderer) Page(w io.Writer, f Frame, content any) error {
	return errors.New("page: not built")
}

// Fragment writes content alone, for a request with the header HX-Request: a pointer to List, Reveal
// or Value.
func (r *Renderer) Fragment(w io.Writer, lang string, content any) error {
	return errors.New("page: not built")
}
