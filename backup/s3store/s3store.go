// Package s3store has the buckets of backups in S3 and in what speaks its protocol, with object lock.
//
// An object is there as long as one version of it is: a delete marker hides nothing, so who may delete but not delete
// versions cannot make a backup look gone. Get reads the newest version. Put writes none while there is one. Delete removes
// versions and markers by their ids, all but those that are locked, so that nothing lingers in a bucket with versions, and what
// was written over a locked version goes. A store that knows no versions is taken as it is.
//
// Credentials come from the environment or profile of AWS and stand in no URL and no error. They need ListBucket,
// ListBucketVersions, GetObject, GetObjectVersion and PutObject; to lock GetObjectRetention and PutObjectRetention; to delete DeleteObject and
// DeleteObjectVersion; for Linger GetBucketVersioning, GetBucketObjectLockConfiguration, GetReplicationConfiguration
// and GetLifecycleConfiguration. A host that only writes backups needs none of those to delete.
//
// The store must know conditional writes (If-None-Match). Each object is one request, so that a crash leaves no parts of uploads.
package s3store

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/crmguard/crmguard/backup"
)

// Options of New. Nil or zero values: a bucket of AWS in the region of the environment or profile.
type Options struct {
	Region    string           // "" = that of the environment or profile; with an Endpoint else us-east-1
	Endpoint  string           // http or https URL of another store; "" = that of the environment or profile, else AWS
	PathStyle bool             // the bucket's name is in the path, not in the host's name
	Prefix    string           // words of [0-9a-z-] with slashes between, before every name; "" = none
	Create    bool             // makes a missing bucket, with object lock
	Stall     time.Duration    // an answer that does not come for so long is given up, thrice; 0 = a minute
	Now       func() time.Time // the clock that says whether a lock is over; nil = time.Now
}

// Bucket is a [backup.Bucket] in S3. It is safe for concurrent use.
type Bucket struct {
	client       *s3.Client
	name, prefix string
	now          func() time.Time
	plain        bool // the store has no call that lists versions
}

var (
	_ backup.Locker   = (*Bucket)(nil)
	_ backup.Lingerer = (*Bucket)(nil)
)

// Open opens a bucket by its URL: s3://BUCKET?region=R&endpoint=URL&use_path_style=true&prefix=WORDS, each part
// but the bucket optional. The URL stands in no error. Errors are those of [New].
func Open(ctx context.Context, bucketURL string) (*Bucket, error) {
	u, err := url.Parse(bucketURL)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.Path != "" && u.Path != "/" || u.User != nil || u.Fragment != "" {
		return nil, errors.New("s3store: a bucket is s3://BUCKET?region=R&endpoint=URL&use_path_style=true&prefix=WORDS")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("s3store: the URL has parts that are not known")
	}
	opts := &Options{}
	for key, values := range q {
		switch {
		case len(values) != 1:
			return nil, errors.New("s3store: the URL has a part twice")
		case key == "region":
			opts.Region = values[0]
		case key == "endpoint":
			opts.Endpoint = values[0]
		case key == "prefix":
			opts.Prefix = values[0]
		case key == "use_path_style":
			if opts.PathStyle, err = strconv.ParseBool(values[0]); err != nil {
				return nil, errors.New("s3store: use_path_style is true or false")
			}
		default:
			return nil, errors.New("s3store: the URL has parts that are not known")
		}
	}
	return New(ctx, u.Host, opts)
}

// New opens a bucket by its name and asks the store for it. Errors: ErrNoBucket, ErrDenied.
func New(ctx context.Context, bucket string, opts *Options) (*Bucket, error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	b := &Bucket{name: bucket, now: time.Now}
	if o.Now != nil {
		b.now = o.Now
	}
	if o.Prefix != "" {
		if err := checkName(o.Prefix); err != nil {
			return nil, errors.New("s3store: a prefix is words of [0-9a-z-] with slashes between")
		}
		b.prefix = o.Prefix + "/"
	}
	if o.Endpoint != "" {
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return nil, errors.New("s3store: an endpoint is http://HOST:PORT or https://HOST, and has no credentials")
		}
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("s3store: environment or profile of AWS: %w", err)
	}
	if o.Region != "" {
		cfg.Region = o.Region
	}
	if cfg.Region == "" && o.Endpoint != "" {
		cfg.Region = "us-east-1"
	}
	if cfg.Region == "" {
		return nil, errors.New("s3store: no region is given")
	}
	if o.Stall <= 0 {
		o.Stall = time.Minute
	}
	web, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		web = awshttp.NewBuildableClient()
	}
	cfg.HTTPClient = web.WithReadTimeout(5 * o.Stall).WithTransportOptions(func(t *http.Transport) { t.ResponseHeaderTimeout = o.Stall })
	b.client = s3.NewFromConfig(cfg, func(so *s3.Options) {
		so.UsePathStyle = o.PathStyle
		so.DisableLogOutputChecksumValidationSkipped = true
		if o.Endpoint != "" {
			so.BaseEndpoint = &o.Endpoint
		}
	})
	if err := b.find(ctx, o.Create); err != nil {
		return nil, err
	}
	return b, nil
}

// find asks whether the bucket is there, and what the store knows.
func (b *Bucket) find(ctx context.Context, create bool) error {
	_, err := b.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.name})
	err = translate("HeadBucket", err)
	if errors.Is(err, backup.ErrNotFound) { // an answer to HEAD has no code
		err = ErrNoBucket
	}
	if errors.Is(err, ErrNoBucket) && create {
		in := &s3.CreateBucketInput{Bucket: &b.name, ObjectLockEnabledForBucket: aws.Bool(true)}
		if o := b.client.Options(); o.BaseEndpoint == nil && o.Region != "us-east-1" {
			in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(o.Region)}
		}
		_, err = b.client.CreateBucket(ctx, in)
		if c := code(err); c == "BucketAlreadyOwnedByYou" { // somebody else came first
			err = nil
		}
		err = translate("CreateBucket", err)
	}
	if err != nil {
		return err
	}
	_, err = b.client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &b.name, Prefix: &b.prefix, MaxKeys: aws.Int32(1)})
	if b.plain = code(err) == "NotImplemented"; b.plain {
		return nil
	}
	return translate("ListObjectVersions", err)
}

// Close does nothing; idle connections end by themselves.
func (b *Bucket) Close() error { return nil }

func checkName(name string) error {
	ok := name != "" && !strings.HasPrefix(name, "/") && !strings.HasSuffix(name, "/") && !strings.Contains(name, "//")
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '/')
	}
	if !ok {
		return errors.New("s3store: an object's name has other signs than 0-9, a-z, - and /")
	}
	return nil
}

func (b *Bucket) key(name string) *string { return aws.String(b.prefix + name) }

// putMark is the metadata by which a writer knows its own object again, whose answer was lost.
const putMark = "put"

// Put implements [backup.Bucket].
func (b *Bucket) Put(ctx context.Context, name string, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	if _, err := b.hidden(ctx, name); !errors.Is(err, backup.ErrNotFound) { // the condition below takes a delete marker for nothing
		if err == nil {
			err = backup.ErrExists
		}
		return err
	}
	mark := rand.Text()
	in := b.putInput(name, data)
	in.IfNoneMatch, in.Metadata = aws.String("*"), map[string]string{putMark: mark}
	for wait := 20 * time.Millisecond; ; wait *= 2 {
		in.Body = bytes.NewReader(data)
		_, err := b.client.PutObject(ctx, in)
		if code(err) == "ConditionalRequestConflict" && wait < 5*time.Second { // another writer is not done yet
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
				continue
			}
		}
		err = translate("PutObject", err)
		if !errors.Is(err, backup.ErrExists) {
			return err
		}
		// The client repeats a request whose answer was lost.
		head, herr := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: in.Key})
		if herr == nil && head.Metadata[putMark] == mark {
			return nil
		}
		return err
	}
}

func (b *Bucket) putInput(name string, data []byte) *s3.PutObjectInput {
	sum := sha256.Sum256(data)
	return &s3.PutObjectInput{
		Bucket: &b.name, Key: b.key(name), Body: bytes.NewReader(data), ContentLength: aws.Int64(int64(len(data))),
		ContentType:    aws.String("application/octet-stream"),
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	}
}

// Replace writes an object whether the name is taken or not: in a bucket with versions a new one on top, the others stay.
// It heals what is damaged and locked.
func (b *Bucket) Replace(ctx context.Context, name string, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	_, err := b.client.PutObject(ctx, b.putInput(name, data))
	return translate("PutObject", err)
}

// Get implements [backup.Bucket].
func (b *Bucket) Get(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if offset < 0 || length < 0 {
		return nil, errors.New("s3store: a negative range")
	}
	data, err := b.get(ctx, name, nil, offset, length)
	if errors.Is(err, backup.ErrNotFound) {
		var id *string
		if id, err = b.hidden(ctx, name); err == nil {
			data, err = b.get(ctx, name, id, offset, length)
		}
	}
	return data, err
}

func (b *Bucket) get(ctx context.Context, name string, id *string, offset, length int64) ([]byte, error) {
	last := offset + max(length, 1) - 1
	if last < offset {
		last = 1<<63 - 1
	}
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{
		Bucket: &b.name, Key: b.key(name), VersionId: id, Range: aws.String(fmt.Sprintf("bytes=%d-%d", offset, last)),
	})
	if code(err) == "InvalidRange" { // it ends before
		return nil, nil
	}
	if err != nil {
		return nil, translate("GetObject", err)
	}
	defer out.Body.Close()
	data, err := io.ReadAll(io.LimitReader(out.Body, length))
	return data, translate("GetObject", err)
}

// hidden returns the id of the newest version that is no delete marker. Error: ErrNotFound.
func (b *Bucket) hidden(ctx context.Context, name string) (*string, error) {
	if b.plain {
		return nil, backup.ErrNotFound
	}
	versions, _, err := b.versions(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(versions) == 0 {
		return nil, backup.ErrNotFound
	}
	return versions[0], nil
}

// versions returns the ids of all versions, newest first, and of all delete markers.
func (b *Bucket) versions(ctx context.Context, name string) (versions, markers []*string, err error) {
	key := b.key(name)
	in := &s3.ListObjectVersionsInput{Bucket: &b.name, Prefix: key}
	for {
		out, err := b.client.ListObjectVersions(ctx, in)
		if err != nil {
			return nil, nil, translate("ListObjectVersions", err)
		}
		for _, v := range out.Versions {
			if aws.ToString(v.Key) == *key {
				versions = append(versions, v.VersionId)
			}
		}
		for _, v := range out.DeleteMarkers {
			if aws.ToString(v.Key) == *key {
				markers = append(markers, v.VersionId)
			}
		}
		if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextKeyMarker) > *key {
			return versions, markers, nil
		}
		in.KeyMarker, in.VersionIdMarker = out.NextKeyMarker, out.NextVersionIdMarker
	}
}

// List implements [backup.Bucket].
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[backup.Object, error] {
	return func(yield func(backup.Object, error) bool) {
		last := ""
		for page, err := range b.pages(ctx, prefix) {
			if err != nil {
				yield(backup.Object{}, err)
				return
			}
			for _, o := range page {
				o.Name = strings.TrimPrefix(o.Name, b.prefix)
				if o.Name == last || strings.HasSuffix(o.Name, "/") { // an older version; what consoles make for folders
					continue
				}
				if o.Name < last {
					yield(backup.Object{}, errors.New("s3store: the store lists objects out of order"))
					return
				}
				if !yield(o, nil) {
					return
				}
				last = o.Name
			}
		}
	}
}

// pages yields all versions of objects, newest first.
func (b *Bucket) pages(ctx context.Context, prefix string) iter.Seq2[[]backup.Object, error] {
	if b.plain {
		return b.plainPages(ctx, prefix)
	}
	return func(yield func([]backup.Object, error) bool) {
		in := &s3.ListObjectVersionsInput{Bucket: &b.name, Prefix: b.key(prefix)}
		for {
			out, err := b.client.ListObjectVersions(ctx, in)
			if err != nil {
				yield(nil, translate("ListObjectVersions", err))
				return
			}
			var page []backup.Object
			for _, v := range out.Versions {
				page = append(page, backup.Object{Name: aws.ToString(v.Key), Size: aws.ToInt64(v.Size), Modified: aws.ToTime(v.LastModified)})
			}
			if !yield(page, nil) || !aws.ToBool(out.IsTruncated) {
				return
			}
			in.KeyMarker, in.VersionIdMarker = out.NextKeyMarker, out.NextVersionIdMarker
		}
	}
}

func (b *Bucket) plainPages(ctx context.Context, prefix string) iter.Seq2[[]backup.Object, error] {
	return func(yield func([]backup.Object, error) bool) {
		p := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: b.key(prefix)})
		for p.HasMorePages() {
			out, err := p.NextPage(ctx)
			if err != nil {
				yield(nil, translate("ListObjectsV2", err))
				return
			}
			var page []backup.Object
			for _, o := range out.Contents {
				page = append(page, backup.Object{Name: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified)})
			}
			if !yield(page, nil) {
				return
			}
		}
	}
}

// Delete implements [backup.Bucket]. Versions that are not locked go, above and below one that is, and so do delete
// markers; so a locked object has its locked content again when something was written over it.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if b.plain {
		return b.remove(ctx, name, nil)
	}
	versions, markers, err := b.versions(ctx, name)
	if err != nil {
		return err
	}
	var locked error
	for i := range versions { // the oldest first, so that Get reads the same until the last
		switch err := b.remove(ctx, name, versions[len(versions)-1-i]); {
		case errors.Is(err, backup.ErrLocked):
			locked = err
		case err != nil:
			return err
		}
	}
	for _, id := range markers {
		if err := b.remove(ctx, name, id); err != nil {
			return err
		}
	}
	return locked
}

// remove removes one version; nil = the object of a store without versions. Error: ErrLocked.
func (b *Bucket) remove(ctx context.Context, name string, id *string) error {
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: b.key(name), VersionId: id})
	switch code(err) {
	case "NoSuchKey", "NoSuchVersion", "NotFound":
		return nil
	case "ObjectLocked":
		return backup.ErrLocked
	case "AccessDenied", "Forbidden", "InvalidRequest":
		if b.kept(ctx, name, id) {
			return backup.ErrLocked
		}
	}
	return translate("DeleteObject", err)
}
