package export_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/audittest"
	"github.com/crmguard/crmguard/audit/export"
	"github.com/crmguard/crmguard/audit/filestore"
	"github.com/crmguard/crmguard/internal/realtest"
)

// job is what an exporter that is killed is told.
type job struct {
	Dir  string // of the log and the cursor
	File string // of the file sink; "": syslog
	Addr string // of the receiver
	PKI  string
}

const jobVariable = "CRMGUARD_EXPORT_JOB"

// TestMain is the exporter when the variable says so.
func TestMain(m *testing.M) {
	if text := os.Getenv(jobVariable); text != "" {
		var j job
		if err := json.Unmarshal([]byte(text), &j); err == nil {
			err = j.run()
			fmt.Fprintln(os.Stderr, "exporter:", err)
		}
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func (j *job) log() (*audit.Log, error) {
	store, err := filestore.Open(filepath.Join(j.Dir, "log"), nil)
	if err != nil {
		return nil, err
	}
	signer, err := audit.OpenSigningKey(filepath.Join(j.Dir, "key"), origin)
	if err != nil {
		return nil, err
	}
	return audit.Open(ctx, store, signer, &audit.Options{Sealer: audittest.NewSealer()})
}

func (j *job) sink() (export.Sink, error) {
	if j.File != "" {
		return export.OpenFile(j.File, &export.FileOptions{MaxBytes: 256 << 10})
	}
	ca, err := os.ReadFile(filepath.Join(j.PKI, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	cert, err := tls.LoadX509KeyPair(filepath.Join(j.PKI, "client.pem"), filepath.Join(j.PKI, "client.key"))
	if err != nil {
		return nil, err
	}
	return export.NewSyslog(j.Addr, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}, &export.SyslogOptions{Overlap: 512})
}

func (j *job) pump(l *audit.Log, s export.Sink) (*export.Pump, error) {
	return export.NewPump(l, export.CEF(source), s, filepath.Join(j.Dir, "cursor"),
		&export.Options{Batch: 64, Poll: 5 * time.Millisecond, MaxWait: 100 * time.Millisecond, Timeout: 10 * time.Second})
}

// run logs and exports until it is killed.
func (j *job) run() error {
	l, err := j.log()
	if err != nil {
		return err
	}
	s, err := j.sink()
	if err != nil {
		return err
	}
	p, err := j.pump(l, s)
	if err != nil {
		return err
	}
	go func() {
		for i := 0; ; i++ {
			es := make([]audit.Event, 16)
			for k := range es {
				es[k] = audit.Event{Action: "customer.read", Activity: audit.Read, Outcome: audit.Allowed, Actor: "emp-7", Note: `text | with = and \ in it`,
					Targets: []audit.Target{{Type: "customer", ID: fmt.Sprintf("客户-%d-%d", i, k)}},
					Details: []audit.Detail{audit.Personal("search.term", [16]byte{1}, secret)}}
			}
			if _, err := l.AppendAll(ctx, es); err != nil {
				fmt.Fprintln(os.Stderr, "exporter:", err)
				os.Exit(4)
			}
			p.Wake()
			time.Sleep(4 * time.Millisecond)
		}
	}()
	return p.Run(ctx)
}

// killed runs the exporter and kills it, times times, and lets it end in peace
// then. It returns the log.
func (j *job) killed(t *testing.T, times int) *audit.Log {
	t.Helper()
	text, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cursor := func() string { b, _ := os.ReadFile(filepath.Join(j.Dir, "cursor")); return string(b) }
	for i := range times {
		before := cursor()
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), jobVariable+"="+string(text))
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		moves := 0
		for end := time.Now().Add(60 * time.Second); moves < 15 && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			if now := cursor(); now != before {
				before = now
				moves++
			}
			select {
			case err := <-ended:
				t.Fatalf("run %d ended: %v\n%s", i, err, out.String())
			default:
			}
		}
		if moves < 15 {
			t.Fatalf("run %d: the cursor moved %d times\n%s", i, moves, out.String())
		}
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-ended
		if out.Len() > 0 {
			t.Fatalf("run %d said: %s", i, out.String())
		}
	}
	l, err := j.log()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s, err := j.sink()
	if err != nil {
		t.Fatal(err)
	}
	p, err := j.pump(l, s)
	if err != nil {
		t.Fatal(err)
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- p.Run(run) }()
	eventually(t, "the rest", func() bool { return p.Status().Lag == 0 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return l
}

// arrived checks records, CEF lines, against the log: each whole line is an
// event as it is in the log, and no event is missing. It returns how many came
// twice.
func arrived(t *testing.T, l *audit.Log, got []string) (twice int, whole bool) {
	t.Helper()
	want := map[string]string{}
	format := export.CEF(source)
	for e, err := range l.Events(ctx, 0) {
		if err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprint(e.Index)] = string(format(e))
	}
	seen := map[string]bool{}
	for _, line := range got {
		_, ext := parseCEF(t, line)
		index := ext["externalId"]
		if want[index] != line {
			t.Fatalf("event %s arrived as\n%s\nwant\n%s", index, line, want[index])
		}
		if seen[index] {
			twice++
		}
		seen[index] = true
	}
	return twice, len(seen) == len(want)
}

func TestKillFile(t *testing.T) {
	dir := t.TempDir()
	j := &job{Dir: dir, File: filepath.Join(dir, "events")}
	l := j.killed(t, 5)
	names, _ := filepath.Glob(j.File + "*")
	var got []string
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")...)
	}
	twice, whole := arrived(t, l, got)
	if !whole {
		t.Fatal("events are missing")
	}
	t.Logf("5 kills: %d events in %d files, none missing, %d twice", l.Size(), len(names), twice)
}

// rsyslogd is a receiver with TLS and client certificates that writes the
// messages to a file.
type rsyslogd struct {
	bin, dir, addr, out string
	cmd                 *exec.Cmd
	said                strings.Builder
}

// rsyslog starts one.
func rsyslog(t *testing.T, p *pki) *rsyslogd {
	t.Helper()
	const howTo = "apt-get install rsyslog rsyslog-gnutls"
	bin, err := exec.LookPath("rsyslogd")
	if err != nil {
		for _, path := range []string{"/usr/sbin/rsyslogd", "/sbin/rsyslogd"} {
			if _, serr := os.Stat(path); serr == nil {
				bin, err = path, nil
				break
			}
		}
	}
	if err != nil {
		err = errors.New("there is no rsyslogd: " + howTo)
	} else if found, _ := filepath.Glob("/usr/lib*/*/rsyslog/lmnsd_gtls.so"); len(found) == 0 {
		if found, _ = filepath.Glob("/usr/lib*/rsyslog/lmnsd_gtls.so"); len(found) == 0 {
			err = errors.New("rsyslogd has no gtls driver: " + howTo)
		}
	}
	realtest.Require(t, "rsyslog", err)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rsyslogd{bin: bin, addr: free.Addr().String(), dir: t.TempDir()}
	free.Close()
	_, port, _ := net.SplitHostPort(r.addr)
	r.out = filepath.Join(r.dir, "messages")
	text := fmt.Sprintf(`global(workDirectory=%q DefaultNetstreamDriver="gtls" DefaultNetstreamDriverCAFile=%q
  DefaultNetstreamDriverCertFile=%q DefaultNetstreamDriverKeyFile=%q)
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/name" PermittedPeer=["client"])
template(name="line" type="list") { property(name="structured-data") constant(value="\t") property(name="msg") constant(value="\n") }
ruleset(name="in") { action(type="omfile" file=%q template="line") }
input(type="imtcp" address="127.0.0.1" port=%q ruleset="in")
`, r.dir, filepath.Join(p.dir, "ca.pem"), filepath.Join(p.dir, "server.pem"), filepath.Join(p.dir, "server.key"), r.out, port)
	if err := os.WriteFile(filepath.Join(r.dir, "conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.stop(syscall.SIGTERM)
		if t.Failed() {
			t.Log(r.said.String())
		}
	})
	r.start(t)
	return r
}

func (r *rsyslogd) start(t *testing.T) {
	t.Helper()
	os.Remove(filepath.Join(r.dir, "pid"))
	r.cmd = exec.Command(r.bin, "-n", "-f", filepath.Join(r.dir, "conf"), "-i", filepath.Join(r.dir, "pid"))
	r.cmd.Stdout, r.cmd.Stderr = &r.said, &r.said
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "rsyslogd", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (r *rsyslogd) stop(sig syscall.Signal) {
	if r.cmd == nil {
		return
	}
	r.cmd.Process.Signal(sig)
	hard := time.AfterFunc(10*time.Second, func() { r.cmd.Process.Kill() })
	r.cmd.Wait()
	hard.Stop()
	r.cmd = nil
}

// read returns the records that are in the file. A kill leaves half of one,
// and the next begins on its line.
func (r *rsyslogd) read(t *testing.T) (got []string) {
	t.Helper()
	f, err := os.Open(r.out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return got // an unfinished line is being written
		}
		line = line[max(0, strings.LastIndex(line, "[crmguard@32473 ")):]
		data, msg, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		msg = strings.TrimPrefix(msg, " ")
		if strings.HasPrefix(msg, "CEF:0|") && strings.HasPrefix(data, "[crmguard@32473 ") {
			got = append(got, msg)
		}
	}
}

// whole waits until every event of the log is there. It returns how many came
// twice.
func (r *rsyslogd) whole(t *testing.T, l *audit.Log) (twice int) {
	t.Helper()
	lines := -1
	eventually(t, "every event", func() bool {
		got := r.read(t)
		if len(got) == lines || uint64(len(got)) < l.Size() {
			time.Sleep(50 * time.Millisecond)
			return false
		}
		var whole bool
		lines = len(got)
		twice, whole = arrived(t, l, got)
		return whole
	})
	return twice
}

// The CEF stream over TLS to rsyslog, while the exporter is killed and started
// again: each index arrives, as it is in the log.
func TestKillRsyslog(t *testing.T) {
	p := newPKI(t)
	r := rsyslog(t, p)
	j := &job{Dir: t.TempDir(), Addr: r.addr, PKI: p.dir}
	l := j.killed(t, 5)
	t.Logf("5 kills: %d events, none missing, %d twice", l.Size(), r.whole(t, l))
}

// The same while rsyslog is killed, with what it had in memory.
func TestKillReceiver(t *testing.T) {
	p := newPKI(t)
	r := rsyslog(t, p)
	l := openLog(t)
	pump := newPump(t, l, tlsSink(t, r.addr, p, &export.SyslogOptions{Overlap: 512}), filepath.Join(t.TempDir(), "cursor"), export.Options{Batch: 32})
	start(t, pump)
	for range 5 {
		add(t, l, 400)
		eventually(t, "some", func() bool { return pump.Status().Lag < 200 })
		r.stop(syscall.SIGKILL)
		add(t, l, 20)
		r.start(t)
	}
	eventually(t, "all", func() bool { s := pump.Status(); return s.Lag == 0 && s.Failures == 0 })
	t.Logf("5 kills of rsyslog: %d events, none missing, %d twice", l.Size(), r.whole(t, l))
}
