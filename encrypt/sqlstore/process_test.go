package sqlstore_test

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/encrypt"
	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/localkek"
	"github.com/crmguard/crmguard/encrypt/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/openertest"
	"github.com/crmguard/crmguard/internal/realtest"
)

// The test binary is also the other processes of these tests.
func TestMain(m *testing.M) {
	role := os.Getenv("CRMGUARD_TEST_ROLE")
	if role == "" {
		os.Exit(m.Run())
	}
	if err := play(role); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// place says where the keys are. It goes to the other processes.
type place struct {
	Dialect, Database, KEK string
}

// open opens the place as a program of its own would.
func (p place) open(ctx context.Context) (*encrypt.Keeper, *countingStore, func(), error) {
	var w, r *sql.DB
	var err error
	if p.Dialect == "sqlite" {
		w, r, err = dialect.OpenSQLite(ctx, p.Database)
	} else {
		w, err = sql.Open("pgx", p.Database)
		r = w
	}
	if err != nil {
		return nil, nil, nil, err
	}
	end := func() { w.Close(); r.Close() }
	s, err := sqlstore.Open(ctx, w, p.Dialect, &sqlstore.Options{Reads: r})
	if err != nil {
		end()
		return nil, nil, nil, err
	}
	kek, err := localkek.Open(p.KEK, &localkek.Options{MustExist: true})
	if err != nil {
		end()
		return nil, nil, nil, err
	}
	store := &countingStore{Store: s}
	k, err := encrypt.NewKeeper(kek, store, &encrypt.Options{Grace: -1, EraseLimit: -1})
	if err != nil {
		end()
		return nil, nil, nil, err
	}
	return k, store, end, nil
}

// countingStore counts the reads of key records.
type countingStore struct {
	keys.Store
	finds atomic.Int64
}

func (s *countingStore) Find(ctx context.Context, tenant string, q keys.Query) ([]keys.Record, error) {
	s.finds.Add(1)
	return s.Store.Find(ctx, tenant, q)
}

// process is another process. It is told a line and answers a line.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t testing.TB, role string, at place) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(at)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), "CRMGUARD_TEST_ROLE="+role, "CRMGUARD_TEST_PLACE="+string(b))
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.in.Close(); p.cmd.Process.Kill(); p.cmd.Wait() })
	return p
}

func (p *process) ask(format string, args ...any) string {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatal("the other process has ended")
	}
	return p.out.Text()
}

// play is the main function of another process.
func play(role string) error {
	ctx := context.Background()
	var at place
	if err := json.Unmarshal([]byte(os.Getenv("CRMGUARD_TEST_PLACE")), &at); err != nil {
		return err
	}
	k, store, end, err := at.open(ctx)
	if err != nil {
		return err
	}
	defer end()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		var person [16]byte
		if len(words) > 1 {
			if _, err := hex.Decode(person[:], []byte(words[1])); err != nil {
				return err
			}
		}
		switch {
		case role == "two" && words[0] == "open":
			sealed, err := hex.DecodeString(words[2])
			if err != nil {
				return err
			}
			before := store.finds.Load()
			plain, err := k.OpenFor(ctx, "acme", person, openertest.Label, nil, sealed)
			fmt.Printf("%q %v, finds: %d\n", plain, err, store.finds.Load()-before)
		case role == "two" && words[0] == "erase":
			r, err := k.Erase(ctx, "acme", person, nil)
			fmt.Printf("%d keys, %v\n", len(r.Keys), err)
		case role == "victim" && words[0] == "erase":
			if _, err := k.Erase(ctx, "acme", person, nil); err != nil {
				return err
			}
			fmt.Println("done")
		case role == "victim" && words[0] == "rotate":
			if err := k.Rotate(ctx, "acme", nil); err != nil {
				return err
			}
			fmt.Println("done")
		default:
			return errors.New("no such order")
		}
	}
	return in.Err()
}

// places are a file of SQLite's and a database of PostgreSQL's.
func places(t *testing.T, test func(t *testing.T, at place)) {
	t.Run("SQLite", func(t *testing.T) {
		dir := t.TempDir()
		test(t, place{Dialect: "sqlite", Database: filepath.Join(dir, "keys.db"), KEK: filepath.Join(dir, "kek")})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		test(t, place{Dialect: "postgres", Database: realtest.Postgres(t).DSN, KEK: filepath.Join(t.TempDir(), "kek")})
	})
}

func (p place) keeper(t testing.TB) *encrypt.Keeper {
	t.Helper()
	if _, err := localkek.Open(p.KEK, nil); err != nil {
		t.Fatal(err)
	}
	k, _, end, err := p.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
	return k
}

// What one process erases another one cannot open at its next read, however warm its cache is.
func TestTwoProcesses(t *testing.T) {
	places(t, func(t *testing.T, at place) {
		k := at.keeper(t)
		gone, stays := personOf(1), personOf(2)
		sealed := make(map[[16]byte][]byte)
		for _, p := range [][16]byte{gone, stays} {
			var err error
			if sealed[p], err = k.SealFor(t.Context(), "acme", p, openertest.Label, nil, []byte("secret")); err != nil {
				t.Fatal(err)
			}
		}
		a, b := start(t, "two", at), start(t, "two", at)
		open := func(want string, p [16]byte) {
			t.Helper()
			if got := b.ask("open %x %x", p, sealed[p]); got != want {
				t.Fatalf("%s, want %s", got, want)
			}
		}
		b.ask("open %x %x", gone, sealed[gone])
		b.ask("open %x %x", stays, sealed[stays])
		for range 3 { // from the cache: no key record is read
			open(`"secret" <nil>, finds: 0`, gone)
			open(`"secret" <nil>, finds: 0`, stays)
		}
		if got := a.ask("erase %x", gone); got != "1 keys, <nil>" {
			t.Fatal(got)
		}
		if got := b.ask("open %x %x", gone, sealed[gone]); !strings.HasPrefix(got, `"" encrypt: person erased`) {
			t.Fatalf("after the erasure in another process: %s", got)
		}
		b.ask("open %x %x", stays, sealed[stays])
		open(`"secret" <nil>, finds: 0`, stays) // the neighbour is cached still, or again
	})
}

type note struct {
	Text string `protect:"personal"`
}

// A process is killed while it erases and rotates. Whatever the moment: every key is alive or a tombstone,
// what was reported erased is erased, the living open, and a rotation goes on where it was.
func TestKilled(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 1
	}
	if os.Getenv("CRMGUARD_SOAK") == "1" {
		rounds = 50
	}
	codec, err := encrypt.NewCodec[*note](nil)
	if err != nil {
		t.Fatal(err)
	}
	places(t, func(t *testing.T, at place) {
		ctx := t.Context()
		k := at.keeper(t)
		const living = 1100 // rotations take several batches
		victims := 12 * rounds
		var recs []encrypt.Record
		var notes []*note
		for i := range living + victims {
			p := personOf(uint64(1 + i))
			recs = append(recs, encrypt.Record{Tenant: "acme", ID: p, Person: p})
			notes = append(notes, &note{Text: fmt.Sprint("note ", i)})
		}
		sealed, err := codec.SealAll(ctx, k, recs, notes)
		if err != nil {
			t.Fatal(err)
		}
		fields := make([][]encrypt.SealedField, len(sealed))
		for i := range sealed {
			fields[i] = sealed[i].Fields
		}
		asked, told := 0, 0 // victims whose erasure was asked for, and reported done
		unfinished, kills, torn := 0, 0, 0
		for round := range rounds {
			p := start(t, "victim", at)
			// The first order is answered when the process is up; then it is killed at some moment.
			rnd := mathrand.New(mathrand.NewPCG(uint64(round), uint64(time.Now().UnixNano())))
			begin := time.Now()
			if got := p.ask("rotate"); got != "done" {
				t.Fatal(got)
			}
			moment := time.Duration(rnd.Int64N(int64(2 * time.Since(begin))))
			timer := time.AfterFunc(moment, func() { p.cmd.Process.Kill() })
			for i := rnd.IntN(12); ; i++ {
				order := "rotate"
				if i%12 != 0 && asked < 12*(round+1) {
					order = fmt.Sprintf("erase %x", personOf(uint64(1+living+asked)))
					asked++
				}
				if _, err := fmt.Fprintln(p.in, order); err != nil || !p.out.Scan() {
					break
				}
				if got := p.out.Text(); got != "done" {
					t.Fatal(got)
				}
				if order != "rotate" {
					told = asked
				}
			}
			timer.Stop()
			p.cmd.Wait()
			if p.cmd.ProcessState.Exited() {
				t.Fatalf("the process ended by itself: %v", p.cmd.ProcessState)
			}
			kills++
			for _, left := range []string{".new", ".old"} { // in a change of the local key
				if _, err := os.Stat(at.KEK + left); err == nil {
					torn++
					break
				}
			}

			after, store, end, err := at.open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			check := func(when string) {
				t.Helper()
				got := make([]*note, len(recs))
				for i := range got {
					got[i] = &note{}
				}
				states, err := codec.OpenAll(ctx, after, recs, fields, got, "text")
				if err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				for i := range got {
					erased := states[i][0] == encrypt.StateErased
					switch {
					case erased && i < living, erased && i >= living+asked:
						t.Fatalf("%s: a living person is erased", when)
					case !erased && i >= living && i < living+told:
						t.Fatalf("%s: an erasure that was reported is undone", when)
					case !erased && got[i].Text != fmt.Sprint("note ", i):
						t.Fatalf("%s: a value does not open: %v", when, states[i][0])
					}
				}
				all, err := store.Find(ctx, "acme", keys.Query{All: true})
				if err != nil {
					t.Fatal(err)
				}
				epochs := make(map[keys.ID]bool)
				for _, r := range all {
					if r.Kind == keys.EpochKey && len(r.Wrapped) > 0 {
						epochs[r.ID] = true
					}
				}
				for _, r := range all {
					switch r.Kind {
					case keys.PersonKey, keys.TenantKey:
						if !epochs[r.Epoch] {
							t.Fatalf("%s: a key lies under a dead epoch", when)
						}
					}
				}
				if len(epochs) > 1 {
					unfinished++
				}
			}
			check("after the kill")
			if err := after.Rotate(ctx, "acme", nil); err != nil {
				t.Fatalf("the rotation does not go on: %v", err)
			}
			unfinishedBefore := unfinished
			check("after the next rotation")
			if unfinished != unfinishedBefore {
				t.Fatal("the rotation left an old epoch alive")
			}
			told = asked // the last one is either done or not; it is asked for again by nobody
			for i := range asked {
				if _, err := after.Erase(ctx, "acme", personOf(uint64(1+living+i)), nil); err != nil {
					t.Fatal(err)
				}
			}
			check("after erasing the rest")
			end()
		}
		t.Logf("%d kills, %d inside a rotation of the keys, %d inside one of the KEK; %d persons erased, %d living open",
			kills, unfinished, torn, asked, living)
	})
}
