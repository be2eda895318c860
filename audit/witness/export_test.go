package witness

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// What the tests outside the package need of the parsers.

func ParseRequest(b []byte) (old uint64, proof []tlog.Hash, note []byte, err error) {
	r, err := parseRequest(b)
	return r.old, r.proof, r.note, err
}

func HeadText(h Head) string { return fmt.Sprintf("%s\n%d\n%s\n", h.Origin, h.Size, h.Root) }

func ParseState(b []byte) ([]Head, error) { return parseState(b) }

func FormatState(list []Head) []byte { return formatState(list) }
