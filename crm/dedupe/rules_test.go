package dedupe_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
)

func TestRules(t *testing.T) {
	for _, typ := range []string{"customer", "lead", "contact", "people"} {
		r, ok := dedupe.Default(typ)
		require.True(t, ok, typ)
		assert.Equal(t, typ, r.Type)
	}
	_, ok := dedupe.Default("quote")
	assert.False(t, ok)
	head := `{"type":"x","likely":0.5,"certain":0.9,"score":`
	for what, text := range map[string]string{
		"nothing": "", "no object": "[]", "an unknown word": `{"kind":1}`, "more": head + `{"fields":["a"],"as":"exact"}} {}`,
		"no score": `{"type":"x","likely":0.5,"certain":0.9}`, "two kinds": head + `{"fields":["a"],"as":"exact","any":[{"fields":["a"],"as":"exact"}]}}`,
		"a comparator": head + `{"fields":["a"],"as":"soundex"}}`, "a normaliser": head + `{"fields":["a"],"as":"normalised","by":"x"}}`,
		"by": head + `{"fields":["a"],"as":"exact","by":"phone"}}`, "a weight": head + `{"fields":["a"],"as":"exact","weight":-1}}`,
		"thresholds":     `{"type":"x","likely":0.95,"certain":0.9,"score":{"fields":["a"],"as":"exact"}}`,
		"a key by parts": head + `{"fields":["a"],"as":"exact"},"keys":[{"fields":["a"],"index":"ngram:person"}]}`,
		"too deep":       head + strings.Repeat(`{"any":[`, 9) + `{"fields":["a"],"as":"exact"}` + strings.Repeat("]}", 9) + "}",
		"too long":       head + strings.Repeat(" ", 70_000) + `{"fields":["a"],"as":"exact"}}`,
	} {
		_, err := dedupe.Parse([]byte(text))
		require.Error(t, err, what)
	}
	r, err := dedupe.Parse([]byte(head + `{"fields":["nothing"],"as":"exact"}}`))
	require.NoError(t, err)
	_, err = dedupe.Compare(r, &someone{}, &someone{}, nil)
	var bad *crm.InvalidError
	require.True(t, errors.As(err, &bad))
}

// FuzzParse: what is read is valid, and is the same when it is written and read again.
func FuzzParse(f *testing.F) {
	f.Add(`{"type":"x","likely":0.5,"certain":0.9,"score":{"any":[{"fields":["a"],"as":"exact"}]}}`)
	f.Add(`{"type":"x","likely":1e-400,"certain":0.9,"score":{"mean":[{"fields":["a"],"as":"date"}],"least":1}}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := dedupe.Parse([]byte(text))
		if err != nil {
			return
		}
		require.NoError(t, r.Validate())
		again, err := json.Marshal(r)
		require.NoError(t, err)
		if len(again) <= 64<<10 {
			_, err = dedupe.Parse(again)
			require.NoError(t, err)
		}
	})
}

func TestComparators(t *testing.T) {
	for _, tc := range []struct {
		node, a, b string
		from, to   float64
	}{
		{`"exact"`, " x ", "x", 1, 1},
		{`"exact"`, "x", "y", 0, 0},
		{`"normalised","by":"phone"`, "138 0013 5678", "+86-13800135678", 1, 1},
		{`"phonetic"`, "Stephen Wright", "Right, Steven", 1, 1},
		{`"phonetic"`, "Stephen Wright", "Mary Poe", 0, 0},
		{`"pinyin"`, "曾小明", "Xiaoming Zeng", 1, 1},
		{`"pinyin"`, "曾小明", "曾晓明", 1, 1},
		{`"pinyin"`, "曾小明", "曾大明", 0, 0},
		{`"pinyin"`, "曾小明", "Zeng", 0, 0},
		{`"address"`, "12 High St, Kew", "12 High Street Kew", 1, 1},
		{`"address"`, "12 High St, Kew", "14 High Street Kew", 0.7, 0.9},
		{`"address"`, "文三路1号2室", "文三路1号3室", 0, 0},
		{`"edit"`, "smith", "smiht", 0.8, 0.8},
		{`"edit"`, "smith", "jones", 0, 0},
		{`"jaro"`, "Martha Lee", "Marhta Lee", 0.97, 0.99},
		{`"jaro"`, "John Smith", "Mary Smith", 0, 0},
		{`"date"`, "1980-05-12", "19800512", 1, 1},
		{`"date"`, "1980-05-12", "1980-12-05", 0.95, 0.95},
		{`"date"`, "1980-05-12", "1980-05-13", 0.9, 0.9},
		{`"date"`, "1980-05-12", "1971-06-30", 0, 0},
	} {
		r, err := dedupe.Parse(fmt.Appendf(nil, `{"type":"x","likely":0.5,"certain":0.9,"score":{"fields":["name"],"as":%s}}`, tc.node))
		require.NoError(t, err)
		v, err := dedupe.Compare(r, &someone{Name: crm.NewText(tc.a)}, &someone{Name: crm.NewText(tc.b)}, nil)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, v.Score, tc.from-1e-9, "%s of %s and %s", tc.node, tc.a, tc.b)
		assert.LessOrEqual(t, v.Score, tc.to+1e-9, "%s of %s and %s", tc.node, tc.a, tc.b)
		back, err := dedupe.Compare(r, &someone{Name: crm.NewText(tc.b)}, &someone{Name: crm.NewText(tc.a)}, nil)
		require.NoError(t, err)
		assert.InDelta(t, v.Score, back.Score, 1e-9, "the other way round")
	}
}

func ExampleCompare() {
	rules, _ := dedupe.Default("people")
	a := &someone{Name: crm.NewText("曾小明"), Phone: crm.NewText("138 0013 5678")}
	b := &someone{Name: crm.NewText("Zeng Xiaoming"), Phone: crm.NewText("+8613800135678")}
	v, err := dedupe.Compare(rules, a, b, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(v.Band == guard.Certain, v.Why)
	// Output: true [name: phonetic phone: normalised]
}
