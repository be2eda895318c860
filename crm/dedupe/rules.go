package dedupe

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/guard"
)

// Rules say what makes two records of a type one. They are data: see docs/formats/dedupe.md.
type Rules struct {
	Type    string  `json:"type"`    // of the records, as they are stored
	Tell    string  `json:"tell"`    // owner (default), exists or nothing: what is told of a duplicate that the asker may not read
	Likely  float64 `json:"likely"`  // from this score on two records are likely one; above 0, at most Certain
	Certain float64 `json:"certain"` // from this score on they are; at most 1
	Score   Node    `json:"score"`
	Keys    []Key   `json:"keys"`   // the indexes that a check asks
	Blocks  []Block `json:"blocks"` // what two records must share to be compared when all are gone over
}

// Node is a group of nodes, or a comparison. It has exactly one of All, Any, Mean and Fields. What cannot be compared, because a side has no value,
// is absent: it counts neither for nor against.
type Node struct {
	All  []Node `json:"all,omitempty"`  // AND: the lowest score of the nodes; absent when one of them is
	Any  []Node `json:"any,omitempty"`  // OR: the highest score; absent when all are
	Mean []Node `json:"mean,omitempty"` // the mean, weighted; absent when likeness weighs less than Least in all: an equal name is not enough

	Fields []string `json:"fields,omitempty"` // any of these of one record with any of them of the other; the best counts
	As     string   `json:"as,omitempty"`     // the comparator
	By     string   `json:"by,omitempty"`     // of normalised: the normaliser, such as phone
	Floor  float64  `json:"floor,omitempty"`  // a comparison below it is 0; 0: 0.7

	Weight  float64 `json:"weight,omitempty"`  // in a Mean, of likeness; 0: 1
	Against float64 `json:"against,omitempty"` // in a Mean, of unlikeness; 0: as Weight
	Least   float64 `json:"least,omitempty"`   // of a Mean
	Worth   float64 `json:"worth,omitempty"`   // what the score is multiplied by, at most 1; 0: 1
}

// Key asks the index of fields for the value of each field; that of a compound index is written name+address.
type Key struct {
	Fields []string `json:"fields"`
	Index  string   `json:"index"`          // exact:NORMALISER; exact:NORMALISER+NORMALISER of a compound one
	Most   int      `json:"most,omitempty"` // where more records than this share the value, it says nothing; at most 50; 0: 50
}

// Block is a term made of several parts; a record without one of them is not in such a block.
type Block []Part

// Part is one part of a block: any of the fields, one block for each value.
type Part struct {
	Fields []string `json:"fields"`
	By     string   `json:"by"`              // a normaliser, or date
	Last   int      `json:"last,omitempty"`  // only so many of its last characters; 0: all
	First  int      `json:"first,omitempty"` // of its first
}

// bounds of rules
const (
	mostRules = 64 << 10 // bytes
	mostNodes = 200
	mostDepth = 8
	mostKeys  = 20
)

//go:embed rules/*.json
var shipped embed.FS

// Default returns the rules for customers, leads or contacts, or for people, which are no stored type: for who has name, born, address, phone, email and id_number. ok is
// false for any other type. The caller may change them.
func Default(typ string) (r *Rules, ok bool) {
	text, err := shipped.ReadFile("rules/" + typ + ".json")
	if err != nil {
		return nil, false
	}
	r, err = Parse(text)
	return r, err == nil
}

// Parse reads rules and validates them. Unknown words are refused. Errors: *crm.InvalidError, or what encoding/json says of the form.
func Parse(text []byte) (*Rules, error) {
	if len(text) > mostRules {
		return nil, invalid("rules", "too_long")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var r Rules
	if err := d.Decode(&r); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("dedupe: rules are no JSON at byte %d", syntax.Offset)
		}
		return nil, fmt.Errorf("dedupe: rules: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("dedupe: something stands behind the rules")
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return &r, nil
}

func invalid(field, rule string) error {
	return &crm.InvalidError{Type: "dedupe", Fields: []crm.FieldError{{Field: field, Rule: rule}}}
}

// Validate returns a *crm.InvalidError that lists every broken rule, or nil. Whether the fields are those of the type New looks.
func (r *Rules) Validate() error {
	v := crm.Checks{Type: "dedupe"}
	v.Str("type", r.Type, true, 40)
	v.OneOf("tell", r.Tell, "", "owner", "exists", "nothing")
	if !(r.Likely > 0 && r.Likely <= r.Certain) {
		v.Add("likely", "out_of_range")
	}
	if !(r.Certain > 0 && r.Certain <= 1) {
		v.Add("certain", "out_of_range")
	}
	nodes := 0
	r.Score.check(&v, "score", 1, &nodes)
	if nodes > mostNodes {
		v.Add("score", "too_long")
	}
	if len(r.Keys) > mostKeys {
		v.Add("keys", "too_long")
	}
	for _, k := range r.Keys {
		v.Required("keys.fields", len(k.Fields) == 0)
		if name, ok := strings.CutPrefix(k.Index, "exact:"); !ok || name == "" {
			v.Add("keys.index", "unknown_value")
		}
		if k.Most < 0 || k.Most > mostPerBlock {
			v.Add("keys.most", "out_of_range")
		}
		for _, f := range k.Fields {
			if strings.Count(f, "+") != strings.Count(k.Fields[0], "+") {
				v.Add("keys.fields", "mismatch")
			}
		}
	}
	if len(r.Blocks) > mostKeys {
		v.Add("blocks", "too_long")
	}
	known := guard.Normalizers("CN")
	for _, b := range r.Blocks {
		v.Required("blocks", len(b) == 0)
		for _, p := range b {
			v.Required("blocks.fields", len(p.Fields) == 0)
			if known[p.By] == nil && p.By != "date" {
				v.Add("blocks.by", "unknown_value")
			}
			if p.Last < 0 || p.First < 0 || p.Last > 0 && p.First > 0 {
				v.Add("blocks.last", "out_of_range")
			}
		}
	}
	return v.Err()
}

// check validates a node and those below it.
func (n *Node) check(v *crm.Checks, at string, depth int, nodes *int) {
	*nodes++
	if depth > mostDepth || *nodes > mostNodes {
		v.Add(at, "too_long")
		return
	}
	kinds := 0
	for name, list := range map[string][]Node{"all": n.All, "any": n.Any, "mean": n.Mean} {
		if len(list) == 0 {
			continue
		}
		kinds++
		for i := range list {
			list[i].check(v, at+"."+name, depth+1, nodes)
		}
	}
	if len(n.Fields) > 0 {
		kinds++
		v.OneOf(at+".as", n.As, comparatorNames...)
		if n.As == "normalised" && guard.Normalizers("CN")[n.By] == nil || n.As != "normalised" && n.By != "" {
			v.Add(at+".by", "unknown_value")
		}
	} else if n.As != "" || n.By != "" || n.Floor != 0 {
		v.Add(at+".as", "mismatch")
	}
	if kinds != 1 {
		v.Add(at, "mismatch")
	}
	if !(n.Floor >= 0 && n.Floor <= 1) {
		v.Add(at+".floor", "out_of_range")
	}
	if !(n.Worth >= 0 && n.Worth <= 1) {
		v.Add(at+".worth", "out_of_range")
	}
	if !(n.Weight >= 0 && n.Weight <= 1000) || !(n.Against >= 0 && n.Against <= 1000) || !(n.Least >= 0 && n.Least <= 1e6) {
		v.Add(at+".weight", "out_of_range")
	}
	if n.Least != 0 && len(n.Mean) == 0 {
		v.Add(at+".least", "mismatch")
	}
}

// names lists the fields of a node and those below it, each once.
func (n *Node) names(into []string) []string {
	for _, f := range n.Fields {
		if !slices.Contains(into, f) {
			into = append(into, f)
		}
	}
	for _, list := range [][]Node{n.All, n.Any, n.Mean} {
		for i := range list {
			into = list[i].names(into)
		}
	}
	return into
}

// tells are the words for what is told.
var tells = map[string]guard.Tell{"": guard.TellOwner, "owner": guard.TellOwner, "exists": guard.TellExists, "nothing": guard.TellNothing}
