package sandbox

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Inventor makes what stands in a sandbox for what was. It is safe for concurrent use.
type Inventor struct{ key *[sha256.Size]byte }

// NewInventor returns one with a new random key, which leaves it by no way.
func NewInventor() *Inventor {
	v := &Inventor{new([sha256.Size]byte)}
	rand.Read(v.key[:])
	return v
}

// Forget destroys the key. Whoever asks for more afterwards gets a panic.
func (v *Inventor) Forget() {
	clear(v.key[:])
	v.key = nil
}

// derive is the one use of the key: what is asked for and of whom, each with its length.
func (v *Inventor) derive(what string, of ...string) (sum [sha256.Size]byte) {
	if v.key == nil {
		panic("sandbox: the inventor has forgotten its key")
	}
	h := hmac.New(sha256.New, v.key[:])
	var n [8]byte
	for _, s := range append([]string{what}, of...) {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	h.Sum(sum[:0])
	return sum
}

// Value invents by a rule of those that invent. of says what the invention belongs to, such as a person's id and the name of a
// field: equal for equal ones. The first of it decides whether the person is Chinese or not.
func (v *Inventor) Value(rule Rule, of ...string) string {
	var who string
	if len(of) > 0 {
		who = of[0]
	}
	d := draw{seed: v.derive("value "+string(rule), of...)}
	language := v.derive("language", who)
	d.chinese = language[0]&1 == 0
	switch rule {
	case Name:
		return d.name()
	case Company:
		return d.company()
	case Phone:
		return fmt.Sprintf("+1 %d 555 01%02d", 201+d.below(790), d.below(100))
	case Email:
		return d.pick(latin) + "." + d.code(12) + "@sandbox.invalid"
	case Address:
		return d.address()
	case IDNumber:
		return d.idNumber()
	}
	return d.text()
}

// ID returns what stands for an id of 16 bytes such as a UUID: another one, of version 8. The zero id, which means none, stays.
func (v *Inventor) ID(id [16]byte) (out [16]byte) {
	if id == out {
		return out
	}
	sum := v.derive("id", string(id[:]))
	copy(out[:], sum[:])
	out[6], out[8] = out[6]&0x0f|0x80, out[8]&0x3f|0x80
	return out
}

// remap returns what stands for an id in any of its forms.
func (v *Inventor) remap(id any) (out any, ok bool) {
	switch id := id.(type) {
	case string:
		return v.remapText(id), true
	case []byte:
		if len(id) == 16 {
			out := v.ID([16]byte(id))
			return out[:], true
		}
		if len(id) == 0 {
			return id, true
		}
		sum := v.derive("bytes", string(id))
		return sum[:], len(id) >= 8
	case int64:
		if id == 0 {
			return id, true
		}
		sum := v.derive("number", fmt.Sprint(id))
		return int64(binary.BigEndian.Uint64(sum[:])>>2 | 1), true
	}
	return nil, false
}

const uuidLength = 36

// remapText changes each UUID in a text that holds nothing else but what stands between the parts of a list. Any other text becomes a
// code as a whole.
func (v *Inventor) remapText(text string) string {
	var b strings.Builder
	for rest := text; rest != ""; {
		if id, ok := parseUUID(rest); ok {
			id = v.ID(id)
			b.WriteString(formatUUID(id))
			rest = rest[uuidLength:]
			continue
		}
		if !strings.ContainsRune(`<>[]{}(),;|" `, rune(rest[0])) {
			sum := v.derive("text", text)
			return codes.EncodeToString(sum[:10])
		}
		b.WriteByte(rest[0])
		rest = rest[1:]
	}
	return b.String()
}

var codes = base32.StdEncoding.WithPadding(base32.NoPadding)

// parseUUID reads the UUID that s begins with.
func parseUUID(s string) (id [16]byte, ok bool) {
	if len(s) < uuidLength || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, false
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:uuidLength]
	_, err := hex.Decode(id[:], []byte(digits))
	return id, err == nil
}

func formatUUID(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// moved is by how many days a time moves at most.
const moved = 15

// offset is by how much the times of a person move: some days, one at least, and less than an hour.
func (v *Inventor) offset(person []byte) time.Duration {
	sum := v.derive("shift", string(person))
	days := 1 + binary.BigEndian.Uint32(sum[:])%moved
	rest := binary.BigEndian.Uint64(sum[8:]) % uint64(time.Hour/time.Microsecond)
	d := time.Duration(days)*24*time.Hour + time.Duration(rest)*time.Microsecond
	if sum[4]&1 == 0 {
		return d - time.Duration(days)*48*time.Hour // back in days, on in the day
	}
	return d
}

// layouts are the forms of times in texts.
var layouts = []string{
	time.DateOnly, time.DateTime, time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999-07:00",
	"2006-01-02 15:04:05.999999999-07", "2006-01-02 15:04:05.999999999",
}

// shift moves a time in any of its forms; false for what is none. What is a day moves by days.
func shift(v any, by, unit time.Duration) (any, bool) {
	switch v := v.(type) {
	case time.Time:
		return shiftTime(v, by), true
	case int64:
		if v == 0 {
			return v, true
		}
		day := int64(24 * time.Hour / unit)
		if day > 0 && v%day == 0 {
			by = days(by)
		}
		out := v + int64(by/unit)
		return out, (out > v) == (by > 0)
	case string:
		if v == "" {
			return v, true
		}
		for _, layout := range layouts {
			t, err := time.Parse(layout, v)
			if err == nil {
				out := shiftTime(t, by)
				return out.Format(layout), out.Year() > 0 && out.Year() <= 9999
			}
		}
	}
	return nil, false
}

func shiftTime(t time.Time, by time.Duration) time.Time {
	switch {
	case t.IsZero():
		return t
	case t.Equal(t.Truncate(24 * time.Hour)):
		by = days(by)
	}
	return t.Add(by)
}

// days leaves the part of a day out.
func days(d time.Duration) time.Duration {
	rest := d % (24 * time.Hour)
	if rest < 0 {
		rest += 24 * time.Hour
	}
	return d - rest
}
