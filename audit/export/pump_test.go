package export_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/export"
	"github.com/crmguard/crmguard/audit/memstore"
)

// memory is a sink whose failures are chosen.
type memory struct {
	mu    sync.Mutex
	got   []uint64
	calls int
	fail  func(call int) error // before anything is taken; nil: never
	after func(call int) error // after all is taken
	hang  chan struct{}        // nil: no
}

func (m *memory) Deliver(ctx context.Context, list []export.Record) error {
	m.mu.Lock()
	m.calls++
	call, hang := m.calls, m.hang
	fail, after := m.fail, m.after
	m.mu.Unlock()
	if hang != nil {
		<-hang // deaf to ctx
		return errors.New("released")
	}
	if fail != nil {
		if err := fail(call); err != nil {
			return err
		}
	}
	m.mu.Lock()
	for _, r := range list {
		m.got = append(m.got, r.Index)
	}
	m.mu.Unlock()
	if after != nil {
		return after(call)
	}
	return nil
}

func (m *memory) Close() error { return nil }

func (m *memory) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// missing returns the first index below size that did not arrive.
func (m *memory) missing(size uint64) (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return missing(m.got, size)
}

func missing(got []uint64, size uint64) (uint64, bool) {
	seen := map[uint64]bool{}
	for _, i := range got {
		seen[i] = true
	}
	for i := range size {
		if !seen[i] {
			return i, true
		}
	}
	return 0, false
}

func newPump(t testing.TB, l export.Log, s export.Sink, path string, o export.Options) *export.Pump {
	t.Helper()
	if o.Poll == 0 {
		o.Poll = 2 * time.Millisecond
	}
	if o.MaxWait == 0 {
		o.MaxWait = 2 * time.Millisecond
	}
	p, err := export.NewPump(l, export.CEF(source), s, path, &o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// start runs a pump and returns what ends it and waits.
func start(t testing.TB, p *export.Pump) (stop func() error) {
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(run) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { stop() })
	return stop
}

func TestPump(t *testing.T) {
	l := openLog(t)
	add(t, l, 99)
	path := filepath.Join(t.TempDir(), "cursor")
	m := &memory{}
	p := newPump(t, l, m, path, export.Options{Batch: 7})
	stop := start(t, p)
	eventually(t, "all", func() bool { return p.Status().Lag == 0 })
	add(t, l, 11)
	p.Wake()
	eventually(t, "all", func() bool { return p.Status().Next == 111 })
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if s := p.Status(); s.Delivered != 111 || s.Size != 111 || s.Failures != 0 || s.Err != nil || s.Last.IsZero() || s.Shed != 0 {
		t.Fatalf("%+v", s)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode())
	}
	// Another one goes on where it ended.
	next := &memory{}
	p = newPump(t, l, next, path, export.Options{})
	start(t, p)
	add(t, l, 1)
	eventually(t, "the last", func() bool { return p.Status().Lag == 0 })
	if len(next.got) != 1 || next.got[0] != 111 {
		t.Fatal(next.got)
	}
	m.got = append(m.got, next.got...)
	for i, index := range m.got {
		if uint64(i) != index {
			t.Fatalf("order: %v", m.got)
		}
	}
}

// A sink that fails, before or after it has taken a batch, loses nothing, and
// nobody gives anything up.
func TestPumpFailures(t *testing.T) {
	l := openLog(t)
	add(t, l, 200)
	m := &memory{
		fail: func(c int) error {
			if c%3 == 0 {
				return errors.New("before")
			}
			return nil
		},
		after: func(c int) error {
			if c%4 == 0 {
				return errors.New("after")
			}
			return nil
		},
	}
	p := newPump(t, l, m, filepath.Join(t.TempDir(), "cursor"), export.Options{Batch: 10})
	start(t, p)
	eventually(t, "all", func() bool { return p.Status().Lag == 0 })
	if i, ok := m.missing(l.Size()); ok {
		t.Fatalf("event %d is missing", i)
	}
	// A sink that is down for long: the log is the buffer.
	m.set(func() { m.fail = func(int) error { return errors.New("down") } })
	add(t, l, 300)
	eventually(t, "failures", func() bool { return p.Status().Failures > 20 })
	if s := p.Status(); s.Lag != 300 || s.Err == nil || s.Shed != 0 || l.Size() != 501 {
		t.Fatalf("%+v", s)
	}
	m.set(func() { m.fail = nil })
	eventually(t, "all", func() bool { return p.Status().Lag == 0 })
	if i, ok := m.missing(l.Size()); ok {
		t.Fatalf("event %d is missing", i)
	}
}

func TestPumpHang(t *testing.T) {
	l := openLog(t)
	add(t, l, 5)
	m := &memory{hang: make(chan struct{})}
	p := newPump(t, l, m, filepath.Join(t.TempDir(), "cursor"), export.Options{Timeout: 10 * time.Millisecond})
	start(t, p)
	eventually(t, "the status", func() bool { s := p.Status(); return s.Hanging && s.Failures > 0 && s.Err != nil && s.Next == 0 })
	m.mu.Lock()
	calls := m.calls
	m.mu.Unlock()
	if calls != 1 {
		t.Fatalf("%d calls at the same time", calls)
	}
	m.set(func() { close(m.hang); m.hang = nil })
	eventually(t, "all", func() bool { s := p.Status(); return s.Lag == 0 && !s.Hanging && s.Failures == 0 })
	// Ending a Pump does not wait for a sink that hangs.
	m.set(func() { m.hang = make(chan struct{}) })
	defer close(m.hang)
	add(t, l, 1)
	stop := start(t, newPump(t, l, m, filepath.Join(t.TempDir(), "other"), export.Options{Timeout: 10 * time.Millisecond}))
	eventually(t, "a call", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.calls > calls+2 })
	done := make(chan struct{})
	go func() { stop(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not end")
	}
}

// gaps lists the ranges that the log says were given up.
func gaps(t testing.TB, l *audit.Log) (out [][2]uint64) {
	t.Helper()
	for e, err := range l.Events(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Event.Action == "export.gap" {
			var from, to uint64
			if _, err := fmt.Sscanf(e.Event.Targets[0].ID, "%d-%d", &from, &to); err != nil || e.Event.Count != int64(to-from+1) {
				t.Fatalf("%+v", e.Event)
			}
			out = append(out, [2]uint64{from, to})
		}
	}
	return out
}

// What is given up is named in the log before the cursor passes it, and every
// event is delivered or named in an event that is delivered.
func TestPumpShedding(t *testing.T) {
	for _, hang := range []bool{false, true} {
		l := openLog(t)
		m := &memory{}
		o := export.Options{MaxLag: 50, Gap: l.Append, Batch: 10, Name: "collector", Timeout: 10 * time.Millisecond}
		path := filepath.Join(t.TempDir(), "cursor")
		p := newPump(t, l, m, path, o)
		stop := start(t, p)
		add(t, l, 500) // a sink that works is never too far behind
		eventually(t, "all", func() bool { return p.Status().Lag == 0 })
		if g := gaps(t, l); len(g) != 0 {
			t.Fatalf("given up: %v", g)
		}
		m.set(func() {
			m.fail = func(int) error { return errors.New("down") }
			if hang {
				m.hang = make(chan struct{})
			}
		})
		for range 4 { // far behind several times, and restarted in between
			add(t, l, 100)
			eventually(t, "shedding", func() bool { return p.Status().Lag <= 50 })
			if !hang {
				stop()
				p = newPump(t, l, m, path, o)
				stop = start(t, p)
			}
		}
		m.set(func() {
			m.fail = nil
			if hang {
				close(m.hang)
				m.hang = nil
			}
		})
		eventually(t, "the rest", func() bool { return p.Status().Lag == 0 })
		g := gaps(t, l)
		if len(g) == 0 {
			t.Fatal("no gap is named")
		}
		named := map[uint64]bool{}
		for e, err := range l.Events(ctx, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Event.Action != "export.gap" {
				continue
			}
			arrived := false
			m.mu.Lock()
			for _, i := range m.got {
				arrived = arrived || i == e.Index
			}
			m.mu.Unlock()
			if !arrived { // only what the receiver learns counts
				continue
			}
			var from, to uint64
			fmt.Sscanf(e.Event.Targets[0].ID, "%d-%d", &from, &to)
			for i := from; i <= to; i++ {
				named[i] = true
			}
			if !strings.Contains(e.Event.Note, "collector") {
				t.Fatal(e.Event.Note)
			}
		}
		m.mu.Lock()
		for _, i := range m.got {
			named[i] = true
		}
		m.mu.Unlock()
		for i := range l.Size() {
			if !named[i] {
				t.Fatalf("event %d is neither delivered nor named; gaps %v", i, g)
			}
		}
		if len(m.got) >= int(l.Size()) {
			t.Fatal("nothing was given up")
		}
		stop()
	}
	// A gap that cannot be logged is not made.
	l := openLog(t)
	m := &memory{fail: func(int) error { return errors.New("down") }}
	p := newPump(t, l, m, filepath.Join(t.TempDir(), "cursor"), export.Options{MaxLag: 10,
		Gap: func(context.Context, audit.Event) (audit.Receipt, error) {
			return audit.Receipt{}, audit.ErrUnavailable
		}})
	start(t, p)
	add(t, l, 100)
	eventually(t, "the error", func() bool { return errors.Is(p.Status().Err, audit.ErrUnavailable) })
	if s := p.Status(); s.Shed != 0 || s.Next != 0 {
		t.Fatalf("%+v", s)
	}
	if _, err := export.NewPump(l, export.CEF(source), m, "x", &export.Options{MaxLag: 1}); err == nil {
		t.Fatal("a pump gives up what nobody names")
	}
}

// A cursor that is damaged, or of a log that is shorter or another one, ends
// the Pump: nothing is skipped and nothing is sent twice in silence.
func TestCursor(t *testing.T) {
	l := openLog(t)
	add(t, l, 20)
	path := filepath.Join(t.TempDir(), "cursor")
	p := newPump(t, l, &memory{}, path, export.Options{})
	stop := start(t, p)
	eventually(t, "all", func() bool { return p.Status().Lag == 0 })
	stop()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, x := range []byte{1, 4, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= x
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := export.NewPump(l, export.CEF(source), &memory{}, path, nil); !errors.Is(err, export.ErrCursor) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
		if err := os.WriteFile(path, good[:i], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := export.NewPump(l, export.CEF(source), &memory{}, path, nil); !errors.Is(err, export.ErrCursor) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	other := openLog(t)
	add(t, other, 30)
	short := openLog(t)
	for _, log := range []*audit.Log{other, short} {
		m := &memory{}
		if err := newPump(t, log, m, path, export.Options{}).Run(ctx); !errors.Is(err, export.ErrCursor) || len(m.got) != 0 {
			t.Fatal(err)
		}
	}
}

// A cursor that cannot be stored is a failure, and the events come again.
func TestCursorNotStored(t *testing.T) {
	l := openLog(t)
	add(t, l, 20)
	dir := filepath.Join(t.TempDir(), "gone")
	m := &memory{}
	p := newPump(t, l, m, filepath.Join(dir, "cursor"), export.Options{})
	start(t, p)
	eventually(t, "failures", func() bool { return p.Status().Failures > 2 })
	if s := p.Status(); s.Next != 0 || s.Err == nil {
		t.Fatalf("%+v", s)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all", func() bool { s := p.Status(); return s.Lag == 0 && s.Failures == 0 })
}

func TestPumpLogFails(t *testing.T) {
	store := memstore.New()
	l, err := audit.Open(ctx, store, audittest.Signer(t, origin), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := newPump(t, brokenLog{l}, &memory{}, filepath.Join(t.TempDir(), "cursor"), export.Options{})
	if err := p.Run(ctx); !errors.Is(err, audit.ErrTampered) {
		t.Fatal(err)
	}
}

type brokenLog struct{ *audit.Log }

func (brokenLog) Events(context.Context, uint64) iter.Seq2[audit.Entry, error] {
	return func(yield func(audit.Entry, error) bool) { yield(audit.Entry{}, audit.ErrTampered) }
}

// After each loss of the connection the last records come again.
func TestPumpSyslog(t *testing.T) {
	pki := newPKI(t)
	r := newReceiver(t, pki, true)
	l := openLog(t)
	p := newPump(t, l, tlsSink(t, r.Addr().String(), pki, &export.SyslogOptions{Overlap: 50}), filepath.Join(t.TempDir(), "cursor"), export.Options{Batch: 10})
	start(t, p)
	for range 8 {
		add(t, l, 60)
		eventually(t, "some", func() bool { return p.Status().Lag < 40 })
		r.cut()
	}
	eventually(t, "all", func() bool { s := p.Status(); return s.Lag == 0 && s.Failures == 0 })
	eventually(t, "what was cut off", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		var got []uint64
		for _, m := range r.got {
			i, _ := strconv.ParseUint(indexOf.FindStringSubmatch(m)[1], 10, 64)
			got = append(got, i)
		}
		_, ok := missing(got, l.Size())
		return !ok
	})
	if s := p.Status(); s.Delivered <= l.Size() {
		t.Fatalf("nothing was sent again: %+v", s)
	}
}

var indexOf = regexp.MustCompile(`index="(\d+)"`)

// Together with the flaky server: each index arrives.
func TestPumpHTTP(t *testing.T) {
	f := &flaky{plan: []int{500, 0, 200, -1, 413, 503, 401, -1, 0, 429, 200, 500, 500, 500}}
	s := httpSink(t, f, 2)
	l := openLog(t)
	add(t, l, 400)
	p := newPump(t, l, s, filepath.Join(t.TempDir(), "cursor"), export.Options{Batch: 30})
	start(t, p)
	eventually(t, "all", func() bool { return p.Status().Lag == 0 })
	var got []uint64
	for _, line := range f.got {
		_, ext := parseCEF(t, line)
		var i uint64
		fmt.Sscan(ext["externalId"], &i)
		got = append(got, i)
	}
	if i, ok := missing(got, l.Size()); ok {
		t.Fatalf("event %d is missing", i)
	}
}
