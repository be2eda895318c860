package password

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn/keyring"
)

// TestBlocklist looks at the list itself: a wrong one, or one that always answers yes, would not pass.
func TestBlocklist(t *testing.T) {
	l, err := parseBlocklist(commonList)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(l.tails) / tailSize; n < 49_000 {
		t.Errorf("%d entries", n)
	}
	for _, w := range []string{"password", "123456", "qwerty", "dragon", "iloveyou", "trustno1", "5201314", "woaini"} {
		if !l.has(w) {
			t.Errorf("%q is not common", w)
		}
	}
	for i := range 100_000 {
		if w := fmt.Sprintf("%x not common %d", i*7919, i); l.has(w) {
			t.Errorf("%q is common", w)
		}
	}
	for what, b := range map[string][]byte{
		"empty": nil, "magic": []byte("x"), "cut": commonList[:len(commonList)-1], "longer": append(bytes.Clone(commonList), 0),
		"head only": commonList[:len(listMagic)+4], "another count": func() []byte { b := bytes.Clone(commonList); b[len(listMagic)+3]++; return b }(),
	} {
		if _, err := parseBlocklist(b); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// TestArgon2 holds the hash against a vector of the reference implementation (phc-winner-argon2, test.c: version 0x13,
// Argon2id, t=2, m=64 MiB, p=1, password "password", salt "somesalt").
func TestArgon2(t *testing.T) {
	got := Params{Memory: 1 << 16, Time: 2, Threads: 1}.hash([]byte("password"), []byte("somesalt"))
	if want := "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"; hex.EncodeToString(got) != want {
		t.Errorf("%x", got)
	}
}

func TestCalibrate(t *testing.T) {
	machine := func(perMiB time.Duration) func(Params) time.Duration {
		return func(p Params) time.Duration {
			return time.Duration(float64(perMiB) * float64(p.Memory) / 1024 * float64(p.Time))
		}
	}
	for _, c := range []struct {
		target time.Duration
		memory uint32
		perMiB time.Duration
		want   Params
	}{
		{250 * time.Millisecond, 0, 20 * time.Millisecond, Floor()},                  // a slow machine
		{76 * time.Millisecond, 0, time.Millisecond, Params{38 << 10, 2, 1}},         // twice the floor: memory
		{256 * time.Millisecond, 0, time.Millisecond, Params{64 << 10, 4, 1}},        // then passes
		{512 * time.Millisecond, 256 << 10, time.Millisecond, Params{1 << 18, 2, 1}}, // all memory
		{10 * time.Second, 0, time.Nanosecond, Params{64 << 10, 64, 1}},              // bounded
	} {
		if got, err := calibrate(c.target, c.memory, machine(c.perMiB)); err != nil || got != c.want {
			t.Errorf("%v: %+v, %v; want %+v", c.target, got, err, c.want)
		}
	}
	for what, c := range map[string]struct {
		target time.Duration
		memory uint32
	}{"no time": {0, 0}, "negative": {-1, 0}, "too long": {11 * time.Second, 0}, "little memory": {time.Second, 19<<10 - 1}, "much": {time.Second, 4<<20 + 1}} {
		if _, err := calibrate(c.target, c.memory, machine(1)); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if p, err := Calibrate(time.Millisecond, 0); err != nil || !p.strong() {
		t.Errorf("this machine: %+v, %v", p, err)
	}
}

// TestRecord: what a record seals is read back, and nothing else is.
func TestRecord(t *testing.T) {
	rec := hashed{params: Floor()}
	rec.salt[3], rec.sum[5] = 1, 2
	if got, err := unmarshal(rec.marshal()); err != nil || got != rec {
		t.Errorf("%+v, %v", got, err)
	}
	for i, b := range [][]byte{nil, rec.marshal()[:plainSize-1], append(rec.marshal(), 0), append([]byte{2}, rec.marshal()[1:]...), hashed{}.marshal()} {
		if got, err := unmarshal(b); !errors.Is(err, ErrRecord) || got != (hashed{}) {
			t.Errorf("%d: %+v, %v", i, got, err)
		}
	}
}

// TestSameWork: whatever an account has, a wrong password costs one hash with each set of live parameters; one of them
// while only one is live.
func TestSameWork(t *testing.T) {
	small, large := Params{16, 1, 1}, Params{64, 1, 1}
	keys, err := keyring.New(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	open := func(o Options) (*Hasher, *[]Params) {
		o.InsecureParams = true
		h, err := New(t.Context(), keys, &o)
		if err != nil {
			t.Fatal(err)
		}
		var done []Params
		h.argon = func(p Params, password, salt []byte) []byte {
			done = append(done, p)
			return p.hash(password, salt)
		}
		return h, &done
	}
	before, _ := open(Options{Params: small})
	old, err := before.Hash(t.Context(), "a", "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	h, done := open(Options{Params: large, Old: []Params{small, large, small}})
	present, err := h.Hash(t.Context(), "a", "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	one, doneOne := open(Options{Params: large})
	for what, c := range map[string]struct {
		account string
		record  []byte
	}{
		"present": {"a", present}, "old": {"a", old}, "unknown": {"b", nil}, "no name": {"", nil}, "moved": {"b", present}, "broken": {"a", present[:9]}, "empty": {"a", []byte{}},
	} {
		for _, pw := range []string{"wrong", "", strings.Repeat("long ", 200)} {
			*done, *doneOne = nil, nil
			if _, err := h.Verify(t.Context(), c.account, c.record, pw); err == nil {
				t.Error("no error")
			}
			if !slices.Equal(*done, []Params{large, small}) {
				t.Errorf("%s: %v", what, *done)
			}
			if what == "old" {
				continue
			}
			if _, err := one.Verify(t.Context(), c.account, c.record, pw); err == nil {
				t.Error("no error")
			}
			if !slices.Equal(*doneOne, []Params{large}) {
				t.Errorf("%s: %v", what, *doneOne)
			}
		}
	}
}

// TestTurns: while all places are taken, calls wait as long as they may, and no longer than their caller; nothing is hashed.
func TestTurns(t *testing.T) {
	keys, err := keyring.New(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(t.Context(), keys, &Options{Params: Params{16, 1, 1}, InsecureParams: true, Concurrent: 2})
	if err != nil {
		t.Fatal(err)
	}
	record, err := h.Hash(t.Context(), "a", "correct horse battery staple")
	if err != nil {
		t.Fatal(err)
	}
	hashes := 0
	h.argon = func(p Params, password, salt []byte) []byte { hashes++; return p.hash(password, salt) }
	late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	gone, stop := context.WithCancel(t.Context())
	stop()
	h.turns <- struct{}{}
	h.turns <- struct{}{}
	for what, c := range map[string]struct {
		ctx  context.Context
		wait time.Duration
		want error
	}{
		"busy": {t.Context(), time.Millisecond, ErrBusy}, "late": {late, time.Hour, context.DeadlineExceeded}, "gone": {gone, time.Hour, context.Canceled},
	} {
		h.wait = c.wait
		for _, r := range [][]byte{record, nil} {
			if _, err := h.Verify(c.ctx, "a", r, "correct horse battery staple"); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := h.Hash(c.ctx, "a", "correct horse battery staple"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if hashes != 0 {
		t.Errorf("%d hashes", hashes)
	}
	h.wait = time.Minute
	time.AfterFunc(10*time.Millisecond, func() { <-h.turns })
	if _, err := h.Verify(t.Context(), "a", record, "correct horse battery staple"); err != nil || hashes != 1 {
		t.Errorf("when a place is free: %v, %d hashes", err, hashes)
	}
	if len(h.turns) != 1 {
		t.Errorf("%d places are taken: one was not given back", len(h.turns))
	}
	<-h.turns
	if _, err := h.Verify(gone, "a", record, "correct horse battery staple"); !errors.Is(err, context.Canceled) {
		t.Errorf("who is gone, with free places: %v", err)
	}
}
