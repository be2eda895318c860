package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/blobstore"
	"github.com/crmguard/crmguard/backup/mirror"
	"github.com/crmguard/crmguard/backup/policy"
	"github.com/crmguard/crmguard/backup/s3store"
	"github.com/crmguard/crmguard/backup/sftpstore"
)

// bucket is one that can be closed.
type bucket interface {
	backup.Bucket
	io.Closer
}

// openBucket opens a bucket by its URL: a folder, S3, or a server that speaks SFTP.
func openBucket(ctx context.Context, url string) (bucket, error) {
	switch scheme, _, _ := strings.Cut(url, "://"); scheme {
	case "s3":
		return s3store.Open(ctx, url)
	case "sftp":
		return sftpstore.Open(ctx, url)
	}
	return blobstore.Open(ctx, url)
}

// place is one place of backups.
type place struct {
	name   string // for people: no credentials
	bucket bucket
}

// openPlaces opens the first URL and its copies. One that does not answer is an error of the first only.
func openPlaces(ctx context.Context, first string, copies []string) (all []place, missing map[string]error, err error) {
	missing = map[string]error{}
	for i, url := range append([]string{first}, copies...) {
		b, err := openBucket(ctx, url)
		if err != nil && i == 0 {
			return nil, nil, err
		}
		if err != nil {
			missing[redact(url)] = err
			continue
		}
		all = append(all, place{redact(url), b})
	}
	return all, missing, nil
}

// BackupPlace is one place of the backups, by itself.
type BackupPlace struct {
	Name   string // for people: no credentials
	Config Config // with that place alone
}

// BackupPlaces are all places of the backups, each with one of the key shards.
func (c Config) BackupPlaces() ([]BackupPlace, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	data, keys := append([]string{c.Backup}, c.BackupCopies...), append([]string{c.BackupKeys}, c.BackupKeysCopies...)
	var all []BackupPlace
	for i := range max(len(data), len(keys)) {
		one := c
		one.Backup, one.BackupKeys = data[min(i, len(data)-1)], keys[min(i, len(keys)-1)]
		one.BackupCopies, one.BackupKeysCopies = nil, nil
		all = append(all, BackupPlace{redact(one.Backup) + " and " + redact(one.BackupKeys), one})
	}
	return all, nil
}

func closePlaces(all []place) error {
	var errs []error
	for _, p := range all {
		errs = append(errs, p.bucket.Close())
	}
	return errors.Join(errs...)
}

// joined makes one bucket of places.
func joined(all []place) (backup.Bucket, *mirror.Bucket, error) {
	if len(all) == 1 {
		return all[0].bucket, nil, nil
	}
	var targets []mirror.Target
	for _, p := range all {
		targets = append(targets, mirror.Target{Name: p.name, Bucket: p.bucket})
	}
	m, err := mirror.New(targets...)
	return m, m, err
}

// medium names the kind of storage of a place.
func medium(name string) string {
	if scheme, _, ok := strings.Cut(name, "://"); ok && scheme != "file" {
		return scheme
	}
	return "disk"
}

// plan reads the plan of backups, nil when there is none.
func (c *Config) plan() (*policy.Plan, error) {
	if c.BackupPlan == "" {
		return nil, nil
	}
	b, err := os.ReadFile(c.BackupPlan)
	if err != nil {
		return nil, errors.New("crm: --backup-plan cannot be read")
	}
	p, err := policy.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("crm: --backup-plan: %w", err)
	}
	return p, nil
}

// targetID names the bucket in few characters.
func (c *Config) targetID() string {
	sum := sha256.Sum256([]byte(c.BackupTarget()))
	return hex.EncodeToString(sum[:4])
}
