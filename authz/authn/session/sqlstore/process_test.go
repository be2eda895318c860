package sqlstore_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
	"github.com/crmguard/crmguard/authz/authn/session"
	"github.com/crmguard/crmguard/authz/authn/session/sqlstore"
	"github.com/crmguard/crmguard/internal/dialect"
	"github.com/crmguard/crmguard/internal/realtest"
)

// The test binary is also the other process of these tests.
func TestMain(m *testing.M) {
	if os.Getenv("CRMGUARD_TEST_DIALECT") == "" {
		os.Exit(m.Run())
	}
	if err := answer(); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

var agent = session.Visit{Agent: "curl/8"}

// manager opens the sessions as a program of its own would. Roles are those of a file, one a line; no file: the account is disabled.
func manager(ctx context.Context, dialectName, database, roles string) (m *session.Manager, end func(), err error) {
	var w, r *sql.DB
	if dialectName == "sqlite" {
		w, r, err = dialect.OpenSQLite(ctx, database)
	} else {
		w, err = sql.Open("pgx", database)
		r = w
	}
	if err != nil {
		return nil, nil, err
	}
	end = func() { w.Close(); r.Close() }
	store, err := sqlstore.Open(ctx, w, dialectName, &sqlstore.Options{Reads: r})
	if err != nil {
		end()
		return nil, nil, err
	}
	key := bytes.Repeat([]byte{1}, 32)
	sealer, err := session.NewKeySealer(key)
	if err != nil {
		end()
		return nil, nil, err
	}
	m, err = session.New(store, sealer, [][]byte{key}, &session.Options{Roles: func(context.Context, string, string, []authn.Method) ([]string, error) {
		b, err := os.ReadFile(roles)
		if errors.Is(err, os.ErrNotExist) {
			return nil, authn.Refuse(errors.New("disabled"))
		}
		return strings.Fields(string(b)), err
	}})
	return m, end, err
}

// answer checks each token that comes in and says what the session may do.
func answer() error {
	ctx := context.Background()
	m, end, err := manager(ctx, os.Getenv("CRMGUARD_TEST_DIALECT"), os.Getenv("CRMGUARD_TEST_DATABASE"), os.Getenv("CRMGUARD_TEST_ROLES"))
	if err != nil {
		return err
	}
	defer end()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		token, err := session.ParseToken(in.Text())
		if err != nil {
			return err
		}
		s, err := m.Check(ctx, token, agent)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(s.Person, s.Roles)
	}
	return in.Err()
}

// TestAnotherProcess: rights that change, sessions that end and accounts that are disabled hold in another process with its next request.
func TestAnotherProcess(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { anotherProcess(t, "sqlite", filepath.Join(t.TempDir(), "sessions.db")) })
	t.Run("postgres", func(t *testing.T) { anotherProcess(t, "postgres", realtest.Postgres(t).DSN) })
}

func anotherProcess(t *testing.T, dialectName, database string) {
	ctx := t.Context()
	roles := filepath.Join(t.TempDir(), "roles")
	m, end, err := manager(ctx, dialectName, database, roles)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CRMGUARD_TEST_DIALECT="+dialectName, "CRMGUARD_TEST_DATABASE="+database, "CRMGUARD_TEST_ROLES="+roles)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	to, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	from, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		to.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	lines := bufio.NewReader(from)
	there := func(token session.Token) (string, time.Duration) {
		t.Helper()
		start := time.Now()
		if _, err := io.WriteString(to, token.Reveal()+"\n"); err != nil {
			t.Fatal(err)
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line), time.Since(start)
	}
	set := func(list string) {
		t.Helper()
		if err := os.WriteFile(roles, []byte(list), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := func(person string) (*session.Session, session.Token) {
		t.Helper()
		epoch, err := m.Epoch(ctx, "acme", person)
		if err != nil {
			t.Fatal(err)
		}
		s, token, err := m.Start(ctx, session.SignIn{
			Tenant: "acme", Person: person, Epoch: epoch, Roles: []string{"sales"}, Methods: []authn.Method{authn.Passkey}, Visit: agent, KnownDevice: true,
		})
		if err != nil {
			t.Fatal(authn.Reason(err))
		}
		return s, token
	}
	refused := authn.ErrRefused.Error()
	want := func(what string, token session.Token, want string) {
		t.Helper()
		got, took := there(token)
		if got != want || took > time.Second {
			t.Errorf("%s: %q after %v, want %q", what, got, took, want)
		}
	}
	set("sales")
	_, ann := start("ann")
	_, bob := start("bob")
	there(ann) // the first one opens connections
	want("ann", ann, "ann [sales]")
	set("admin sales")
	want("nobody has told yet", ann, "ann [sales]")
	if err := m.RightsChanged(ctx, "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	want("after the change", ann, "ann [admin sales]")
	want("somebody else", bob, "bob [sales]")
	s, second := start("ann")
	if err := m.End(ctx, "acme", "ann", s.ID); err != nil {
		t.Fatal(err)
	}
	want("one ended", second, refused)
	want("the other goes on", ann, "ann [admin sales]")
	if _, fresh, err := m.StepUp(ctx, ann, []authn.Method{authn.Passkey}, agent); err != nil {
		t.Fatal(authn.Reason(err))
	} else {
		want("the token before a step-up", ann, refused)
		want("the token after it", fresh, "ann [admin sales]")
		ann = fresh
	}
	if err := os.Remove(roles); err != nil {
		t.Fatal(err)
	}
	if err := m.RightsChanged(ctx, "acme", "ann"); err != nil {
		t.Fatal(err)
	}
	want("disabled", ann, refused)
	if _, err := m.EndAll(ctx, "acme", "bob"); err != nil {
		t.Fatal(err)
	}
	want("all ended", bob, refused)
	want("never one", func() session.Token { x, _ := session.ParseToken(strings.Repeat("A", 43)); return x }(), refused)
}

// TestDatabaseStops: while PostgreSQL is away nobody is let in and the reason is the true one; sessions from before go on when it is back.
func TestDatabaseStops(t *testing.T) {
	ctx := t.Context()
	p := realtest.PostgresWith(t, realtest.PostgresOptions{})
	m, end, err := manager(ctx, "postgres", p.DSN, filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	in := session.SignIn{Tenant: "acme", Person: "ann", Epoch: 1, Methods: []authn.Method{authn.Passkey}, Visit: agent, KnownDevice: true}
	_, token, err := m.Start(ctx, in)
	if err != nil {
		t.Fatal(authn.Reason(err))
	}
	p.Kill(t)
	for what, call := range map[string]func() error{
		"Check":  func() error { _, err := m.Check(ctx, token, agent); return err },
		"Start":  func() error { _, _, err := m.Start(ctx, in); return err },
		"StepUp": func() error { _, _, err := m.StepUp(ctx, token, in.Methods, agent); return err },
	} {
		err := call()
		reason := authn.Reason(err)
		if !errors.Is(err, authn.ErrRefused) || err.Error() != authn.ErrRefused.Error() || !strings.HasPrefix(reason.Error(), "authn/session/sqlstore: ") ||
			!dialect.IsUnavailable(reason) {
			t.Errorf("%s: %v (%v)", what, err, reason)
		}
	}
	if _, err := m.EndAll(ctx, "acme", "ann"); err == nil {
		t.Error("EndAll says that it has ended something")
	}
	p.Start(t)
	if s, err := m.Check(ctx, token, agent); err != nil || s.Person != "ann" {
		t.Errorf("after the restart: %v (%v)", err, authn.Reason(err))
	}
}
