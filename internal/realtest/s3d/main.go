// Command s3d runs a real S3 server, the gateway versitygw over a folder, with versions, object lock, bucket policies and a
// second account, for tests only. It is a module of its own, so that the gateway never reaches a user of the SDK.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	addr := flag.String("addr", "", "address to listen on, with a port")
	dir := flag.String("dir", "", "folder; what is stored comes into root and versions below it")
	root := flag.String("root", "", "KEY:SECRET of the account that may do everything")
	user := flag.String("user", "", "KEY:SECRET of the account that may do what bucket policies allow")
	flag.Parse()
	if err := run(*addr, *dir, *root, *user); err != nil {
		fmt.Fprintln(os.Stderr, "s3d:", err)
		os.Exit(1)
	}
}

// run serves until it is signalled.
func run(addr, dir, root, user string) error {
	rootKey, rootSecret, err := pair(root)
	if err != nil {
		return err
	}
	userKey, userSecret, err := pair(user)
	if err != nil {
		return err
	}
	data, versions, accounts := filepath.Join(dir, "root"), filepath.Join(dir, "versions"), filepath.Join(dir, "accounts")
	for _, d := range []string{data, versions, accounts} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if err := (meta.XattrMeta{}).Test(data); err != nil {
		return fmt.Errorf("the file system has no user attributes: %w", err)
	}
	iam, err := auth.NewInternal(auth.Account{Access: rootKey, Secret: rootSecret, Role: auth.RoleAdmin}, accounts)
	if err != nil {
		return err
	}
	err = iam.CreateAccount(auth.Account{Access: userKey, Secret: userSecret, Role: auth.RoleUser})
	if err != nil && !errors.Is(err, auth.ErrUserExists) {
		return err
	}
	be, err := posix.New(data, meta.XattrMeta{}, posix.PosixOpts{VersioningDir: versions, Concurrency: 100})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return embedgw.RunVersityGW(ctx, be, &embedgw.Config{
		RootUserAccess: rootKey, RootUserSecret: rootSecret, IAMService: iam, Ports: []string{addr}, HealthPath: "/healthz",
		MaxConnections: 1000, MaxRequests: 1000, MultipartMaxParts: 10000, Quiet: true, KeepAlive: true,
	})
}

// pair splits KEY:SECRET.
func pair(s string) (key, secret string, err error) {
	for i := range len(s) {
		if s[i] == ':' && i > 0 && i < len(s)-1 {
			return s[:i], s[i+1:], nil
		}
	}
	return "", "", errors.New("an account is KEY:SECRET")
}
