package s3store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/crmguard/crmguard/backup"
)

// Lock implements [backup.Locker]: the version that Get reads is kept in compliance mode, which nobody can end. One
// in governance mode becomes firm, which may take the right BypassGovernanceRetention. Errors also:
// backup.ErrUnlocked when the bucket has no object lock.
func (b *Bucket) Lock(ctx context.Context, name string, until time.Time) error {
	id, mode, kept, err := b.retention(ctx, name)
	if err != nil {
		return err
	}
	if mode == types.ObjectLockRetentionModeGovernance && until.Before(kept) && until.After(b.now()) {
		until = kept // a lock of the other mode is made firm, not shorter
	}
	until = until.UTC().Add(time.Second - 1).Truncate(time.Second)
	if !until.After(b.now()) || mode == types.ObjectLockRetentionModeCompliance && !until.After(kept) {
		return nil
	}
	in := &s3.PutObjectRetentionInput{
		Bucket: &b.name, Key: b.key(name), VersionId: id,
		Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeCompliance, RetainUntilDate: &until},
	}
	if mode == types.ObjectLockRetentionModeGovernance {
		in.BypassGovernanceRetention = aws.Bool(true) // some stores ask for it
	}
	_, err = b.client.PutObjectRetention(ctx, in)
	if err == nil {
		return nil
	}
	if noLock(err) {
		return fmt.Errorf("%w: the bucket has no object lock", backup.ErrUnlocked)
	}
	if now, nerr := b.LockedUntil(ctx, name); nerr == nil && !now.Before(until) { // somebody else was faster
		return nil
	}
	return translate("PutObjectRetention", err)
}

// LockedUntil implements [backup.Locker], of the version that Get reads. Governance mode does not count, which some may end.
func (b *Bucket) LockedUntil(ctx context.Context, name string) (time.Time, error) {
	_, mode, until, err := b.retention(ctx, name)
	if err != nil || mode != types.ObjectLockRetentionModeCompliance || !until.After(b.now()) {
		return time.Time{}, err
	}
	return until, nil
}

// retention returns the lock of the newest version; id is nil when it is the current one.
func (b *Bucket) retention(ctx context.Context, name string) (id *string, mode types.ObjectLockRetentionMode, until time.Time, err error) {
	if err := checkName(name); err != nil {
		return nil, "", time.Time{}, err
	}
	mode, until, err = b.retentionOf(ctx, name, nil)
	if errors.Is(err, backup.ErrNotFound) {
		if id, err = b.hidden(ctx, name); err == nil {
			mode, until, err = b.retentionOf(ctx, name, id)
		}
	}
	return id, mode, until, err
}

func (b *Bucket) retentionOf(ctx context.Context, name string, id *string) (types.ObjectLockRetentionMode, time.Time, error) {
	out, err := b.client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: &b.name, Key: b.key(name), VersionId: id})
	switch c := code(err); {
	case c == "MethodNotAllowed": // the current version is a delete marker
		return "", time.Time{}, backup.ErrNotFound
	case noLock(err):
		if id == nil { // the store did not look whether the object is there
			_, err := b.get(ctx, name, nil, 0, 0)
			return "", time.Time{}, err
		}
		return "", time.Time{}, nil
	case err != nil:
		return "", time.Time{}, translate("GetObjectRetention", err)
	case out.Retention == nil:
		return "", time.Time{}, nil
	}
	return out.Retention.Mode, aws.ToTime(out.Retention.RetainUntilDate).UTC(), nil
}

// noLock tells whether an error says that an object or its bucket has no lock, or the store knows none.
func noLock(err error) bool {
	switch code(err) {
	case "NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest", "NotImplemented":
		return true
	}
	return false
}

// kept tells whether a version that could not be removed is locked.
func (b *Bucket) kept(ctx context.Context, name string, id *string) bool {
	const skew = 15 * time.Minute // of the clocks; a store takes no request that is more off
	if mode, until, err := b.retentionOf(ctx, name, id); err == nil && mode != "" && until.Add(skew).After(b.now()) {
		return true
	}
	hold, err := b.client.GetObjectLegalHold(ctx, &s3.GetObjectLegalHoldInput{Bucket: &b.name, Key: b.key(name), VersionId: id})
	if err == nil && hold.LegalHold != nil && hold.LegalHold.Status == types.ObjectLockLegalHoldStatusOn {
		return true
	}
	days, err := b.defaultLock(ctx) // some stores do not show it at the objects
	return err == nil && days > 0
}

// defaultLock returns for how many days the bucket locks whatever is written; 0 = it does not.
func (b *Bucket) defaultLock(ctx context.Context) (days int, err error) {
	out, err := b.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &b.name})
	if err != nil {
		if noLock(err) && code(err) != "NotImplemented" {
			return 0, nil
		}
		return 0, err
	}
	if c := out.ObjectLockConfiguration; c != nil && c.Rule != nil && c.Rule.DefaultRetention != nil {
		r := c.Rule.DefaultRetention
		return int(aws.ToInt32(r.Days)) + 366*int(aws.ToInt32(r.Years)), nil
	}
	return 0, nil
}

// Linger implements [backup.Lingerer]. It asks for a default lock, for replication and, where Delete cannot remove old versions,
// for versions and the rule that ends them. What the store does not tell stands in the cause. What S3 has no call for, such as soft delete
// by a provider, it cannot know.
func (b *Bucket) Linger(ctx context.Context) (after time.Duration, cause string, err error) {
	var causes []string
	note := func(d time.Duration, format string, args ...any) {
		after = max(after, d)
		causes = append(causes, fmt.Sprintf(format, args...))
	}
	const day = 24 * time.Hour
	switch days, err := b.defaultLock(ctx); {
	case code(err) == "NotImplemented":
		note(0, "the store does not say whether it locks what is written")
	case err != nil:
		return 0, "", translate("GetObjectLockConfiguration", err)
	case days > 0:
		note(time.Duration(days)*day, "the bucket locks whatever is written, for %d days", days)
	}
	replication, err := b.client.GetBucketReplication(ctx, &s3.GetBucketReplicationInput{Bucket: &b.name})
	switch c := code(err); {
	case c == "ReplicationConfigurationNotFoundError":
	case c == "NotImplemented":
		note(0, "the store does not say whether it replicates")
	case err != nil:
		return 0, "", translate("GetBucketReplication", err)
	case replication.ReplicationConfiguration != nil:
		for _, r := range replication.ReplicationConfiguration.Rules {
			if r.Status == types.ReplicationRuleStatusEnabled {
				note(backup.Forever, "objects are replicated to another bucket, where deletions of versions do not reach them")
				break
			}
		}
	}
	if b.plain {
		if err := b.lingerPlain(ctx, note); err != nil {
			return 0, "", err
		}
	}
	return after, strings.Join(causes, "; "), nil
}

// lingerPlain is for a store that does not list versions but may keep them.
func (b *Bucket) lingerPlain(ctx context.Context, note func(time.Duration, string, ...any)) error {
	v, err := b.client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &b.name})
	switch {
	case code(err) == "NotImplemented":
		note(0, "the store knows no versions")
		return nil
	case err != nil:
		return translate("GetBucketVersioning", err)
	case v.Status == "":
		return nil
	}
	rules, err := b.client.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: &b.name})
	if c := code(err); err != nil && c != "NoSuchLifecycleConfiguration" && c != "NotImplemented" {
		return translate("GetBucketLifecycleConfiguration", err)
	}
	if err == nil {
		for _, r := range rules.Rules {
			n := r.NoncurrentVersionExpiration
			all := r.Filter != nil && r.Filter.And == nil && r.Filter.Tag == nil && r.Filter.ObjectSizeGreaterThan == nil &&
				r.Filter.ObjectSizeLessThan == nil && strings.HasPrefix(b.prefix, aws.ToString(r.Filter.Prefix))
			if r.Status == types.ExpirationStatusEnabled && n != nil && n.NewerNoncurrentVersions == nil && all {
				days := aws.ToInt32(n.NoncurrentDays)
				note(time.Duration(days+1)*24*time.Hour, "old versions cannot be removed and expire after %d days", days)
				return nil
			}
		}
	}
	note(backup.Forever, "old versions cannot be removed, and no rule of the bucket ends them")
	return nil
}
