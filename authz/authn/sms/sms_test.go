package sms_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/records"
	"github.com/crmguard/crmguard/authz/authn/sms"
)

// clock is set by tests.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time       { return time.Unix(c.Load(), 0) }
func (c *clock) pass(d time.Duration) { c.Add(int64(d / time.Second)) }

func secret(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

// desk is a Codes with what is around it.
type desk struct {
	*sms.Codes
	clock clock
	store records.Kind
	file  *sms.FileSender
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	file, err := sms.NewFileSender(filepath.Join(t.TempDir(), "messages"), authn.SMS)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{store: records.Of(&records.Memory{}, "sms"), file: file}
	d.clock.Store(1_795_750_000)
	if d.Codes, err = sms.New(d.store, file, secret(1), &sms.Options{Now: d.clock.now}); err != nil {
		t.Fatal(err)
	}
	return d
}

const phone = "+8613800138000"

// send returns the code that the person gets.
func (d *desk) send(t testing.TB, account, purpose string) string {
	t.Helper()
	if err := d.Send(t.Context(), account, purpose, phone); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.file.Path())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	var m struct{ To, Code, Purpose string }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &m); err != nil || m.To != phone || m.Purpose != purpose || len(m.Code) != 8 {
		t.Fatalf("%+v, %v", m, err)
	}
	return m.Code
}

// other is a code that is not this one.
func other(code string) string {
	return strings.Map(func(r rune) rune { return '0' + (r-'0'+1)%10 }, code)
}

func (d *desk) verify(t testing.TB, what, account, purpose, code string, want error) {
	t.Helper()
	if err := d.Verify(t.Context(), account, purpose, code); !errors.Is(err, want) || want == nil && err != nil {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestOnce(t *testing.T) {
	d := newDesk(t)
	d.verify(t, "none sent", "a", "sign-in", "12345678", sms.ErrNone)
	code := d.send(t, "a", "sign-in")
	d.verify(t, "for another account", "b", "sign-in", code, sms.ErrNone)
	d.verify(t, "for another purpose", "a", "reset", code, sms.ErrNone)
	d.verify(t, "wrong", "a", "sign-in", other(code), sms.ErrWrong)
	d.verify(t, "right", "a", "sign-in", code[:4]+" "+code[4:], nil)
	for range 2 {
		d.verify(t, "again", "a", "sign-in", code, sms.ErrNone)
	}
	stored, _ := d.store.Load(t.Context(), "a|sign-in")
	if stored != nil {
		t.Error("a used code is kept")
	}
}

func TestLife(t *testing.T) {
	d := newDesk(t)
	code := d.send(t, "a", "sign-in")
	if err := d.Send(t.Context(), "a", "sign-in", phone); !errors.Is(err, sms.ErrTooSoon) {
		t.Errorf("at once again: %v", err)
	}
	if err := d.Send(t.Context(), "b", "sign-in", phone); err != nil {
		t.Errorf("for another account: %v", err)
	}
	d.clock.pass(time.Minute)
	fresh := d.send(t, "a", "sign-in")
	if code != fresh {
		d.verify(t, "replaced", "a", "sign-in", code, sms.ErrWrong)
	}
	d.clock.pass(10 * time.Minute)
	d.verify(t, "at the end", "a", "sign-in", fresh, nil)
	d.clock.pass(time.Minute)
	late := d.send(t, "a", "sign-in")
	d.clock.pass(10*time.Minute + time.Second)
	d.verify(t, "late", "a", "sign-in", late, sms.ErrExpired)
	d.verify(t, "late and wrong", "a", "sign-in", other(late), sms.ErrExpired)
	d.clock.pass(-time.Hour) // set back: a new code may be sent
	d.verify(t, "the new one", "a", "sign-in", d.send(t, "a", "sign-in"), nil)
}

func TestTries(t *testing.T) {
	d := newDesk(t)
	code := d.send(t, "a", "sign-in")
	for range 20 { // no codes, and no tries
		d.verify(t, "malformed", "a", "sign-in", "1234567", sms.ErrWrong)
		d.verify(t, "malformed", "a", "sign-in", code+"0", sms.ErrWrong)
		d.verify(t, "malformed", "a", "sign-in", "１"+code[1:], sms.ErrWrong)
		d.verify(t, "malformed", "a", "sign-in", strings.Repeat("x", 1<<20), sms.ErrWrong)
	}
	for range sms.Tries {
		d.verify(t, "wrong", "a", "sign-in", other(code), sms.ErrWrong)
	}
	for range 3 {
		d.verify(t, "the right one after five wrong", "a", "sign-in", code, sms.ErrTries)
	}
	if err := d.Send(t.Context(), "a", "sign-in", phone); !errors.Is(err, sms.ErrTooSoon) {
		t.Errorf("five tries do not make a new code: %v", err)
	}
}

// TestParallel: of a hundred parallel wrong tries five are answered; of a hundred right ones one is accepted.
func TestParallel(t *testing.T) {
	d := newDesk(t)
	for _, c := range []struct {
		right       bool
		first, rest error
		answered    int64
	}{{false, sms.ErrWrong, sms.ErrTries, sms.Tries}, {true, nil, sms.ErrNone, 1}} {
		code := d.send(t, "a", "sign-in")
		if !c.right {
			code = other(code)
		}
		var first, rest atomic.Int64
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				switch err := d.Verify(t.Context(), "a", "sign-in", code); {
				case errors.Is(err, c.first):
					first.Add(1)
				case errors.Is(err, c.rest):
					rest.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if first.Load() != c.answered || rest.Load() != 100-c.answered {
			t.Errorf("right %v: %d and %d", c.right, first.Load(), rest.Load())
		}
		d.clock.pass(time.Minute)
	}
}

// TestForged: a record that was moved, changed or sent another way verifies nothing.
func TestForged(t *testing.T) {
	d := newDesk(t)
	code := d.send(t, "a", "sign-in")
	stored, _ := d.store.Load(t.Context(), "a|sign-in")
	for i := range stored {
		b := bytes.Clone(stored)
		b[i] ^= 1
		store := records.Of(&records.Memory{}, "sms")
		store.Swap(t.Context(), "a|sign-in", nil, b)
		c, err := sms.New(store, d.file, secret(1), &sms.Options{Now: d.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		const left = 17 // the tries that are left, which count down
		if err := c.Verify(t.Context(), "a", "sign-in", code); (err == nil) != (i == left) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	d.store.Swap(t.Context(), "b|sign-in", nil, stored)
	d.verify(t, "moved", "b", "sign-in", code, sms.ErrWrong)
	d.store.Swap(t.Context(), "a|reset", nil, stored)
	d.verify(t, "of another purpose", "a", "reset", code, sms.ErrWrong)
	d.store.Swap(t.Context(), "c|sign-in", nil, stored[:20])
	d.verify(t, "cut", "c", "sign-in", code, sms.ErrRecord)
	mail, err := sms.NewFileSender(t.TempDir(), authn.Email)
	if err != nil {
		t.Fatal(err)
	}
	byMail, err := sms.New(d.store, mail, secret(1), &sms.Options{Now: d.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := byMail.Verify(t.Context(), "a", "sign-in", code); !errors.Is(err, sms.ErrWrong) {
		t.Errorf("sent another way: %v", err)
	}
	d.verify(t, "itself", "a", "sign-in", code, nil)
}

// away is a sender that does not send.
type away struct{ *sms.FileSender }

var errAway = errors.New("away")

func (away) Send(context.Context, sms.Message) error { return errAway }

func TestSenderAway(t *testing.T) {
	d := newDesk(t)
	bad, err := sms.New(d.store, away{d.file}, secret(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Send(t.Context(), "a", "sign-in", phone); !errors.Is(err, errAway) || strings.Contains(err.Error(), phone) {
		t.Error(err)
	}
	d.verify(t, "a code that was not sent", "a", "sign-in", "12345678", sms.ErrNone)
	if err := d.Send(t.Context(), "a", "sign-in", phone); err != nil {
		t.Errorf("the next: %v", err)
	}
}

func TestFile(t *testing.T) {
	d := newDesk(t)
	d.send(t, "a", "sign-in")
	info, err := os.Stat(d.file.Path())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	if folder, err := os.Stat(filepath.Dir(d.file.Path())); err != nil || folder.Mode().Perm() != 0o700 {
		t.Fatal(folder.Mode(), err)
	}
	if err := os.Chmod(d.file.Path(), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := d.Send(t.Context(), "b", "sign-in", phone); err == nil || strings.Contains(err.Error(), phone) {
		t.Errorf("a file that others may read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.file.Send(ctx, sms.Message{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, m := range []authn.Method{authn.TOTP, authn.Passkey, ""} {
		if _, err := sms.NewFileSender(t.TempDir(), m); err == nil {
			t.Errorf("%q sends codes", m)
		}
	}
	if _, err := sms.NewFileSender(d.file.Path(), authn.SMS); err == nil {
		t.Error("a file is no folder")
	}
}

// strong is a sender that claims to be an app.
type strong struct{ *sms.FileSender }

func (strong) Method() authn.Method { return authn.TOTP }

func TestArguments(t *testing.T) {
	d := newDesk(t)
	for i, c := range []struct {
		store  sms.Store
		sender sms.Sender
		key    []byte
		opts   sms.Options
	}{
		{nil, d.file, secret(1), sms.Options{}}, {d.store, nil, secret(1), sms.Options{}}, {d.store, d.file, secret(1)[:31], sms.Options{}},
		{d.store, strong{d.file}, secret(1), sms.Options{}}, {d.store, d.file, secret(1), sms.Options{Lives: 11 * time.Minute}},
		{d.store, d.file, secret(1), sms.Options{Lives: -1}}, {d.store, d.file, secret(1), sms.Options{Every: -1}},
	} {
		if _, err := sms.New(c.store, c.sender, c.key, &c.opts); err == nil {
			t.Errorf("%d: no error", i)
		}
	}
	for _, c := range [][3]string{{"", "sign-in", phone}, {"a", "", phone}, {"a", "sign|in", phone}, {"a", "Sign in", phone}, {"a", "sign-in", ""}, {strings.Repeat("a", 1025), "sign-in", phone}} {
		if err := d.Send(t.Context(), c[0], c[1], c[2]); err == nil {
			t.Errorf("%.10q: no error", c)
		}
	}
	m := sms.Message{To: phone, Code: "12345678"}
	js, err := json.Marshal(m)
	if text := fmt.Sprintf("%v %+v %#v %s %s", m, m, &m, m, js); err != nil || strings.Contains(text, "1234") || strings.Contains(text, "138") {
		t.Errorf("%s, %v", text, err)
	}
}

// golden is a record of version 1, as it was when the version was fixed.
func golden(t testing.TB) (lines map[string]string, key, record []byte) {
	t.Helper()
	b, err := os.ReadFile("testdata/record-v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines = map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			lines[name] = value
		}
	}
	if key, err = hex.DecodeString(lines["key"]); err != nil {
		t.Fatal(err)
	}
	if record, err = hex.DecodeString(lines["record"]); err != nil {
		t.Fatal(err)
	}
	return lines, key, record
}

// TestGolden: the golden record is read as it was.
func TestGolden(t *testing.T) {
	lines, key, record := golden(t)
	d := newDesk(t)
	if _, err := d.store.Swap(t.Context(), lines["account"]+"|"+lines["purpose"], nil, record); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.Codes, err = sms.New(d.store, d.file, key, &sms.Options{Now: d.clock.now}); err != nil {
		t.Fatal(err)
	}
	d.verify(t, "wrong", lines["account"], lines["purpose"], other(lines["code"]), sms.ErrWrong)
	d.verify(t, "right", lines["account"], lines["purpose"], lines["code"], nil)
}

// FuzzVerify: nothing but the code is taken, whatever is typed and stored.
func FuzzVerify(f *testing.F) {
	lines, key, stored := golden(f)
	d := newDesk(f)
	plain := strings.NewReplacer(" ", "", "-", "")
	f.Add(lines["code"], stored)
	f.Add("1234-5678", stored)
	f.Add("", []byte{1})
	f.Fuzz(func(t *testing.T, typed string, record []byte) {
		if len(record) == 0 {
			return
		}
		store := records.Of(&records.Memory{}, "sms")
		if _, err := store.Swap(t.Context(), lines["account"]+"|"+lines["purpose"], nil, record); err != nil {
			t.Fatal(err)
		}
		c, err := sms.New(store, d.file, key, &sms.Options{Now: d.clock.now})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Verify(t.Context(), lines["account"], lines["purpose"], typed); err == nil && plain.Replace(typed) != lines["code"] {
			t.Errorf("%q is taken", typed)
		}
	})
}

func ExampleCodes() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	file, err := sms.NewFileSender(dir, authn.SMS) // for development; a provider's sender in production
	if err != nil {
		panic(err)
	}
	codes, err := sms.New(records.Of(&records.Memory{}, "sms"), file, secret(7), nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(codes.Send(ctx, "01a2", "sign-in", "+8613800138000"))
	fmt.Println(codes.Send(ctx, "01a2", "sign-in", "+8613800138000"))
	fmt.Println(codes.Verify(ctx, "01a2", "reset", "12345678"))
	// Output:
	// <nil>
	// sms: a code was sent just now
	// sms: no code was sent, or it was used
}
