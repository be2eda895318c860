// Package sftpstore has the buckets of backups on a host that one reaches by SFTP.
//
// The host's key is pinned, by a known_hosts file or itself. One proves who one is by a key file or an agent; there are no passwords.
//
// An object is written under a temporary name in the folder .tmp, synced where the server has fsync@openssh.com, and gets
// its name by a hard link, which fails when the name is taken: so a crash leaves a whole object or none and two programs never
// replace each other's objects. The name itself is as durable as the server's file system makes it; SFTP has no call for more.
// On a server without hardlink@openssh.com a writer takes the name's temporary file for itself, looks whether the name is
// taken, and renames: that holds between programs that use this package, and a crash keeps others from that name until the
// temporary file is removed. Temporary files are removed when they are a day old and the bucket is opened.
//
// Folders are made with mode 0700 and files with 0600. SFTP has no object lock.
package sftpstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pkg/sftp"

	"github.com/crmguard/crmguard/backup"
)

// Errors besides those of package backup.
var (
	ErrHostKey  = errors.New("sftpstore: the host has another key than the pinned one") // or none is pinned for it
	ErrDenied   = errors.New("sftpstore: denied")                                       // wrong credentials, or the host does not permit it
	ErrNoFolder = errors.New("sftpstore: no such folder")
)

// Options of New. Nil or zero values: the agent, and the user's known_hosts file.
type Options struct {
	KeyFile    string        // private key in the form of OpenSSH or PEM, without passphrase, mode 0600; "" = the agent at SSH_AUTH_SOCK
	KnownHosts string        // file with the host's key; "" = ~/.ssh/known_hosts, unless HostKey is given
	HostKey    string        // the host's key itself, such as "ssh-ed25519 AAAA…"; "" = that of KnownHosts
	Create     bool          // makes a missing folder
	Stall      time.Duration // a connection on which nothing comes or goes for so long is given up; 0 = a minute
}

// Bucket is a [backup.Bucket] in a folder of another host. It is safe for concurrent use, by up to four connections, which are made anew
// when they were lost.
type Bucket struct {
	folder string
	pool   *pool
}

var _ backup.Bucket = (*Bucket)(nil)

const temporary = ".tmp" // folder of temporary files; no object's name has a dot

// Open opens a bucket by its URL: sftp://USER@HOST:PORT/FOLDER?key=FILE&known_hosts=FILE, the port and the parts after it
// optional. The URL stands in no error. Errors are those of [New].
func Open(ctx context.Context, bucketURL string) (*Bucket, error) {
	usage := errors.New("sftpstore: a bucket is sftp://USER@HOST:PORT/FOLDER?key=FILE&known_hosts=FILE")
	u, err := url.Parse(bucketURL)
	if err != nil || u.Scheme != "sftp" || u.Hostname() == "" || u.User.Username() == "" || u.Fragment != "" {
		return nil, usage
	}
	if _, ok := u.User.Password(); ok {
		return nil, errors.New("sftpstore: a URL has no password; use a key file or an agent")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, usage
	}
	opts := &Options{}
	for key, values := range q {
		switch {
		case len(values) != 1:
			return nil, usage
		case key == "key":
			opts.KeyFile = values[0]
		case key == "known_hosts":
			opts.KnownHosts = values[0]
		default:
			return nil, usage
		}
	}
	port := u.Port()
	if port == "" {
		port = "22"
	}
	return New(ctx, net.JoinHostPort(u.Hostname(), port), u.User.Username(), u.Path, opts)
}

// New opens a folder, by its absolute path, of a user at a host:port. It connects and looks for the folder. Errors: ErrHostKey, ErrDenied,
// ErrNoFolder, backupkey.ErrInsecure when others may read the key file.
func New(ctx context.Context, addr, user, folder string, opts *Options) (*Bucket, error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	if !path.IsAbs(folder) || path.Clean(folder) == "/" {
		return nil, errors.New("sftpstore: a folder is an absolute path")
	}
	if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || user == "" {
		return nil, errors.New("sftpstore: a host is HOST:PORT, and has a user")
	} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return nil, errors.New("sftpstore: a host is HOST:PORT, and has a user")
	}
	p, err := newPool(addr, user, &o)
	if err != nil {
		return nil, err
	}
	b := &Bucket{folder: path.Clean(folder), pool: p}
	if err := b.begin(ctx, o.Create); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// begin looks for the folder and removes temporary files that a crash left a day ago.
func (b *Bucket) begin(ctx context.Context, create bool) error {
	return b.pool.do(ctx, nil, func(c *conn) error {
		info, err := c.Stat(b.folder)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !create:
			return ErrNoFolder
		case errors.Is(err, fs.ErrNotExist):
			if err := makeFolders(c, b.folder, "/"); err != nil {
				return err
			}
		case err != nil:
			return err
		case !info.IsDir():
			return ErrNoFolder
		}
		dir := path.Join(b.folder, temporary)
		files, err := c.ReadDirContext(ctx, dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		for _, f := range files {
			if time.Since(f.ModTime()) > 24*time.Hour {
				if err := c.Remove(path.Join(dir, f.Name())); lost(err) {
					return err
				}
			}
		}
		return err
	})
}

// makeFolders makes a folder and those above it, below top.
func makeFolders(c *conn, dir, top string) error {
	if dir == top || dir == "/" {
		return nil
	}
	if info, err := c.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := makeFolders(c, path.Dir(dir), top); err != nil {
		return err
	}
	if err := c.Mkdir(dir); err != nil {
		if info, serr := c.Stat(dir); serr == nil && info.IsDir() { // somebody else came first
			return nil
		}
		return err
	}
	return c.Chmod(dir, 0o700)
}

// Close ends the connections.
func (b *Bucket) Close() error {
	b.pool.close()
	return nil
}

func checkName(name string) error {
	ok := name != "" && !strings.HasPrefix(name, "/") && !strings.HasSuffix(name, "/") && !strings.Contains(name, "//")
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '/')
	}
	if !ok {
		return errors.New("sftpstore: an object's name has other signs than 0-9, a-z, - and /")
	}
	return nil
}

// gone tells a missing object from a missing folder.
func (b *Bucket) gone(c *conn) error {
	switch _, err := c.Stat(b.folder); {
	case errors.Is(err, fs.ErrNotExist):
		return ErrNoFolder
	case err != nil:
		return err
	}
	return backup.ErrNotFound
}

// Put implements [backup.Bucket]. When the connection is lost while the name is given, the object may be there despite the error;
// it is whole then.
func (b *Bucket) Put(ctx context.Context, name string, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	named := false // whether the name was asked for
	return b.pool.do(ctx, &named, func(c *conn) error {
		final := path.Join(b.folder, name)
		if _, err := c.Lstat(final); err == nil {
			return backup.ErrExists
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_, links := c.HasExtension("hardlink@openssh.com")
		tmp := path.Join(b.folder, temporary, strings.ReplaceAll(name, "/", "."))
		if links {
			tmp += "." + rand.Text()
		}
		if err := b.write(c, tmp, data); err != nil {
			return err
		}
		err := ctx.Err()
		if err == nil {
			err = b.rename(c, tmp, final, links, &named)
		}
		if !lost(err) && (links || err != nil) {
			if rerr := c.Remove(tmp); lost(rerr) && err == nil { // the object is there, its other name goes after a day
				c.broken = true
			}
		}
		return err
	})
}

// write writes a temporary file.
func (b *Bucket) write(c *conn, tmp string, data []byte) error {
	create := func() (*sftp.File, error) { return c.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL) }
	f, err := create()
	if errors.Is(err, fs.ErrNotExist) {
		if err := b.gone(c); !errors.Is(err, backup.ErrNotFound) {
			return err
		}
		if err := makeFolders(c, path.Dir(tmp), b.folder); err != nil {
			return b.full(c, len(data), err)
		}
		f, err = create()
	}
	if err != nil {
		if _, serr := c.Lstat(tmp); serr == nil {
			return fmt.Errorf("sftpstore: another program writes this object, or one crashed on the last day: %w", err)
		}
		return b.full(c, len(data), err)
	}
	err = f.Chmod(0o600)
	if err == nil {
		_, err = f.Write(data)
	}
	if _, ok := c.HasExtension("fsync@openssh.com"); ok && err == nil {
		err = f.Sync()
	}
	if err != nil {
		err = b.full(c, len(data), err)
	}
	if lost(err) {
		return err
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil && !lost(err) {
		if rerr := c.Remove(tmp); lost(rerr) {
			c.broken = true
		}
	}
	return err
}

// full makes backup.ErrFull of an error when the disk has no room, which SFTP has no code for.
func (b *Bucket) full(c *conn, size int, err error) error {
	var se *sftp.StatusError
	if !errors.As(err, &se) || lost(err) {
		return err
	}
	if _, ok := c.HasExtension("statvfs@openssh.com"); !ok {
		return err
	}
	vfs, verr := c.StatVFS(b.folder)
	if verr == nil && (vfs.Bavail*vfs.Frsize < uint64(size) || vfs.Files > 0 && vfs.Favail == 0) {
		return backup.ErrFull
	}
	return err
}

// rename gives a temporary file its name unless that is taken.
func (b *Bucket) rename(c *conn, tmp, final string, links bool, named *bool) error {
	if err := makeFolders(c, path.Dir(final), b.folder); err != nil {
		return b.full(c, 4096, err)
	}
	if !links {
		if _, err := c.Lstat(final); err == nil {
			return backup.ErrExists
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		*named = true
		return c.Rename(tmp, final)
	}
	*named = true
	err := c.Link(tmp, final)
	if err != nil && !lost(err) {
		if _, serr := c.Lstat(final); serr == nil { // there is no code for it
			return backup.ErrExists
		}
		return b.full(c, 4096, err)
	}
	return err
}

// Get implements [backup.Bucket].
func (b *Bucket) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if offset < 0 || length < 0 {
		return nil, errors.New("sftpstore: a negative range")
	}
	var data []byte
	err := b.pool.do(ctx, nil, func(c *conn) error {
		f, err := c.Open(path.Join(b.folder, name))
		if errors.Is(err, fs.ErrNotExist) {
			return b.gone(c)
		}
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			f.Close()
			return backup.ErrNotFound
		}
		data = make([]byte, min(length, max(info.Size()-offset, 0)))
		n, err := f.ReadAt(data, offset)
		data = data[:n]
		if errors.Is(err, io.EOF) && !c.dead() {
			err = nil
		}
		if cerr := f.Close(); err == nil && lost(cerr) {
			c.broken = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

// List implements [backup.Bucket].
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[backup.Object, error] {
	return func(yield func(backup.Object, error) bool) {
		dir, _ := path.Split(prefix)
		if _, err := b.list(ctx, strings.TrimSuffix(dir, "/"), prefix, yield); err != nil {
			yield(backup.Object{}, err)
		}
	}
}

// list yields the objects of a folder and those below, in the order of whole names; more is false when the reader has enough.
func (b *Bucket) list(ctx context.Context, dir, prefix string, yield func(backup.Object, error) bool) (more bool, err error) {
	if dir != "" && checkName(dir) != nil {
		return true, nil
	}
	var entries []fs.FileInfo
	err = b.pool.do(ctx, nil, func(c *conn) (err error) { // no connection is held while the reader is at it
		entries, err = c.ReadDirContext(ctx, path.Join(b.folder, dir))
		if errors.Is(err, fs.ErrNotExist) {
			entries = nil
			if err = b.gone(c); errors.Is(err, backup.ErrNotFound) {
				err = nil
			}
		}
		return err
	})
	if err != nil {
		return false, err
	}
	name := func(e fs.FileInfo) string {
		n := path.Join(dir, e.Name())
		if e.IsDir() {
			n += "/"
		}
		return n
	}
	slices.SortFunc(entries, func(a, b fs.FileInfo) int { return strings.Compare(name(a), name(b)) })
	for _, e := range entries {
		n := name(e)
		switch {
		case e.IsDir() && e.Name() != temporary && (strings.HasPrefix(n, prefix) || strings.HasPrefix(prefix, n)):
			if more, err := b.list(ctx, strings.TrimSuffix(n, "/"), prefix, yield); err != nil || !more {
				return more, err
			}
		case e.Mode().IsRegular() && strings.HasPrefix(n, prefix):
			if !yield(backup.Object{Name: n, Size: e.Size(), Modified: e.ModTime()}, nil) {
				return false, nil
			}
		}
	}
	return true, nil
}

// Delete implements [backup.Bucket]. Whatever the host does not permit is taken for locked.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return b.pool.do(ctx, nil, func(c *conn) error {
		err := c.Remove(path.Join(b.folder, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err = b.gone(c); errors.Is(err, backup.ErrNotFound) {
				err = nil
			}
		case errors.Is(err, fs.ErrPermission):
			err = backup.ErrLocked
		case err != nil && !lost(err):
			if info, serr := c.Lstat(path.Join(b.folder, name)); serr == nil && info.IsDir() { // no object
				err = nil
			}
		}
		return err
	})
}
