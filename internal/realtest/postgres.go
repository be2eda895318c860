package realtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// PostgresServer is a fresh database on a real server.
type PostgresServer struct {
	DB  *sql.DB // closed at the end of the test
	DSN string  // for the driver "pgx"; holds no password on a private cluster
	Dir string  // the cluster's data folder; empty on a server that CRMGUARD_TEST_POSTGRES names

	cluster *cluster
}

// Postgres returns a fresh database: on the server that CRMGUARD_TEST_POSTGRES names by its connection
// URL, else on a private cluster in a temporary folder, one for the test binary, that ends with it. The test is skipped, or
// fails where postgres is required, when the machine has no PostgreSQL.
func Postgres(t testing.TB) *PostgresServer {
	t.Helper()
	p, err := newPostgres(t)
	Require(t, "postgres", err)
	return p
}

// PostgresOptions of PostgresWith.
type PostgresOptions struct {
	Settings []string // such as "archive_mode=on"; paths are relative to Dir; nil = none
	Backup   string   // a copy of a data folder to start from, as pg_basebackup makes it; "" = a new cluster
	Database string   // with Backup: the database to open
}

// PostgresWith returns a fresh database on a private cluster of its own, which ends with the test. It
// skips or fails as Postgres does.
func PostgresWith(t testing.TB, opts PostgresOptions) *PostgresServer {
	t.Helper()
	c, err := newCluster(opts)
	Require(t, "postgres", err)
	t.Cleanup(func() {
		c.stop(syscall.SIGQUIT)
		os.RemoveAll(c.dir)
	})
	p := &PostgresServer{cluster: c, Dir: filepath.Join(c.dir, "data")}
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	name := opts.Database
	if opts.Backup == "" {
		name = "crmguard"
		out, err := p.Command("createdb", name).CombinedOutput()
		if err != nil {
			t.Fatalf("createdb: %v: %s", err, out)
		}
	}
	p.DSN = c.url(name)
	if p.DB, err = sql.Open("pgx", p.DSN); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.DB.Close() })
	return p
}

// Command is a program of the server's own folder, such as pg_basebackup, that connects to it, as the
// user and in the folder above Dir that belong to the server.
func (p *PostgresServer) Command(name string, args ...string) *exec.Cmd {
	cmd := p.cluster.command(name, args...)
	cmd.Env = append(cmd.Env, "PGHOST="+p.cluster.dir, "PGUSER=postgres")
	return cmd
}

var databases atomic.Int64

func newPostgres(t testing.TB) (*PostgresServer, error) {
	p := &PostgresServer{}
	base := os.Getenv("CRMGUARD_TEST_POSTGRES")
	if base == "" {
		c, err := sharedCluster()
		if err != nil {
			return nil, err
		}
		if err := c.start(); err != nil { // a test before may have stopped it
			return nil, err
		}
		p.cluster, p.Dir, base = c, filepath.Join(c.dir, "data"), c.url("postgres")
	}
	admin, err := sql.Open("pgx", base)
	if err != nil {
		return nil, errors.New("CRMGUARD_TEST_POSTGRES is not a connection URL")
	}
	defer admin.Close()
	name := fmt.Sprintf("crmguard_%d_%d", os.Getpid(), databases.Add(1))
	if _, err := admin.Exec("CREATE DATABASE " + name); err != nil {
		return nil, fmt.Errorf("create a database: %w", err)
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, errors.New("CRMGUARD_TEST_POSTGRES is not a connection URL")
	}
	u.Path = "/" + name
	p.DSN = u.String()
	if p.DB, err = sql.Open("pgx", p.DSN); err != nil {
		return nil, err
	}
	p.DB.SetMaxOpenConns(10)
	p.DB.SetMaxIdleConns(10)
	t.Cleanup(func() {
		p.DB.Close()
		if p.cluster != nil && !p.cluster.running() {
			return
		}
		if admin, err := sql.Open("pgx", base); err == nil {
			defer admin.Close()
			admin.Exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)") // what stays goes with the cluster
		}
	})
	return p, nil
}

// Stop ends the server as an operator would: running transactions are rolled back, a checkpoint is
// written. It and its kin concern all databases of the cluster, so such tests must not be parallel; they skip on a server that is
// not ours.
func (p *PostgresServer) Stop(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGINT)
}

// Kill ends the server at once, as a crash would.
func (p *PostgresServer) Kill(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGQUIT)
}

func (p *PostgresServer) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if p.cluster == nil {
		t.Skip("postgres: a server that CRMGUARD_TEST_POSTGRES names is not stopped")
	}
	p.cluster.stop(sig)
	t.Cleanup(func() { p.Start(t) })
}

// Start starts a stopped server and waits until it answers.
func (p *PostgresServer) Start(t testing.TB) {
	t.Helper()
	if p.cluster == nil {
		return
	}
	if err := p.cluster.start(); err != nil {
		t.Fatal(err)
	}
}

// cluster is a private server.
type cluster struct {
	dir, bin string
	as       *syscall.SysProcAttr
	settings []string

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
}

var sharedCluster = sync.OnceValues(func() (*cluster, error) { return newCluster(PostgresOptions{}) })

func newCluster(opts PostgresOptions) (*cluster, error) {
	bin, err := postgresFolder()
	if err != nil {
		return nil, err
	}
	// Not t.TempDir: its parents are closed to other users, and a socket's path holds 107 bytes.
	dir, err := os.MkdirTemp("", "crmguard-pg")
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, bin: bin, as: &syscall.SysProcAttr{Setpgid: true}, settings: opts.Settings}
	if os.Getuid() == 0 { // the server refuses root
		uid, gid, err := unprivileged()
		if err != nil {
			return nil, err
		}
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
		c.as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := c.janitor(); err != nil {
		return nil, err
	}
	if opts.Backup != "" {
		cp := c.command("cp", "-a", opts.Backup, "data")
		cp.Path = "/bin/cp"
		if out, err := cp.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("copy of a backup: %w: %s", err, out)
		}
		return c, nil
	}
	initdb := c.command("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	return c, nil
}

// postgresFolder finds the newest server programs.
func postgresFolder() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	slices.SortFunc(found, func(a, b string) int { // by major version
		v := func(path string) int { n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))); return n }
		return v(b) - v(a)
	})
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real // the other programs are beside the real one
		}
		found = append([]string{path}, found...)
	}
	for _, path := range found {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), "initdb")); err == nil {
			return filepath.Dir(path), nil
		}
	}
	return "", errors.New("no PostgreSQL server here: apt-get install postgresql, or name one by CRMGUARD_TEST_POSTGRES=postgres://...")
}

func unprivileged() (uid, gid int, err error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errU := strconv.Atoi(u.Uid)
		gid, errG := strconv.Atoi(u.Gid)
		if errU == nil && errG == nil {
			return uid, gid, nil
		}
	}
	return 0, 0, errors.New("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
}

func (c *cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = c.dir, []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}, c.as
	return cmd
}

// janitor starts a shell that waits for the end of this process, however it comes, and then ends the
// server and removes its folder.
func (c *cluster) janitor() error {
	cmd := exec.Command("/bin/sh", "-c", `cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null && sleep 0.3
rm -rf "$1"`, "sh", c.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	janitors = append(janitors, in)
	return cmd.Start()
}

// janitors keeps the pipes open until the process ends.
var janitors []io.Closer

// url names a database of the cluster, over its socket.
func (c *cluster) url(database string) string {
	q := url.Values{"host": {c.dir}, "user": {"postgres"}, "sslmode": {"disable"}}
	return "postgres:///" + database + "?" + q.Encode()
}

func (c *cluster) running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cmd != nil
}

func (c *cluster) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd != nil {
		return nil
	}
	out, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	args := []string{"-D", "data", "-k", c.dir, "-c", "listen_addresses="}
	for _, s := range c.settings {
		args = append(args, "-c", s)
	}
	cmd := c.command("postgres", args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	db, err := sql.Open("pgx", c.url("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		if err = db.PingContext(ctx); err == nil {
			c.cmd, c.ended = cmd, ended
			return nil
		}
		select {
		case <-ended:
			log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("postgres ended: %s", log[max(0, len(log)-2000):])
		case <-ctx.Done():
			cmd.Process.Kill()
			return fmt.Errorf("postgres does not answer: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (c *cluster) stop(sig syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return
	}
	c.cmd.Process.Signal(sig)
	<-c.ended
	c.cmd = nil
}
