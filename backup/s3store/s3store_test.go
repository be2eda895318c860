package s3store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/s3store"
	"github.com/crmguard/crmguard/internal/realtest"
)

func server(t *testing.T) *realtest.S3Server {
	t.Helper()
	s := realtest.S3(t)
	s.Environ(s.Key, s.Secret)
	return s
}

var buckets atomic.Int64

// create opens a new bucket with object lock, by its URL.
func create(t testing.TB, s *realtest.S3Server) (b *s3store.Bucket, name string) {
	t.Helper()
	name = fmt.Sprintf("bucket-%d", buckets.Add(1))
	b, err := s3store.New(t.Context(), name, &s3store.Options{Endpoint: s.URL, PathStyle: true, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return b, name
}

func open(t testing.TB, endpoint, name string) *s3store.Bucket {
	t.Helper()
	q := url.Values{"endpoint": {endpoint}, "region": {"us-east-1"}, "use_path_style": {"true"}}
	b, err := s3store.Open(t.Context(), "s3://"+name+"?"+q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// raw is a client for what thieves, consoles and operators do.
func raw(t *testing.T, s *realtest.S3Server) *s3.Client {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion("us-east-1"))
	if err != nil {
		t.Fatal(err)
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) { o.BaseEndpoint, o.UsePathStyle = &s.URL, true })
}

func put(t *testing.T, b backup.Bucket, name, data string) {
	t.Helper()
	if err := b.Put(t.Context(), name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// has fails unless the bucket lists one object of that content, or none for "".
func has(t *testing.T, b backup.Bucket, name, want string) {
	t.Helper()
	got, err := b.Get(t.Context(), name, 0, 100)
	if want == "" && !errors.Is(err, backup.ErrNotFound) || want != "" && err != nil || string(got) != want {
		t.Fatalf("get: %q, %v; want %q", got, err, want)
	}
	n := 0
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if o.Name == name {
			n++
			if o.Size != int64(len(want)) {
				t.Fatalf("listed with %d bytes, want %d", o.Size, len(want))
			}
		}
	}
	if want == "" && n != 0 || want != "" && n != 1 {
		t.Fatalf("listed %d times", n)
	}
}

func TestLocker(t *testing.T) {
	s := server(t)
	backuptest.TestLocker(t, func(t testing.TB) backup.Locker {
		b, _ := create(t, s)
		return b
	})
}

func TestPrefix(t *testing.T) {
	s := server(t)
	outer, name := create(t, s)
	put(t, outer, "backups2/x", "other")
	for range 2 {
		n := 0
		backuptest.TestBucket(t, func(t testing.TB) backup.Bucket {
			n++
			b, err := s3store.New(t.Context(), name, &s3store.Options{Endpoint: s.URL, PathStyle: true, Prefix: fmt.Sprintf("backups/%d-%d", buckets.Add(1), n)})
			if err != nil {
				t.Fatal(err)
			}
			return b
		})
	}
	has(t, outer, "backups2/x", "other")
}

// A bucket without versions.
func TestUnversioned(t *testing.T) {
	s := server(t)
	backuptest.TestBucket(t, func(tb testing.TB) backup.Bucket {
		name := fmt.Sprintf("bucket-%d", buckets.Add(1))
		if _, err := raw(t, s).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
			tb.Fatal(err)
		}
		return open(tb, s.URL, name)
	})
	name := fmt.Sprintf("bucket-%d", buckets.Add(1))
	if _, err := raw(t, s).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	b := open(t, s.URL, name)
	put(t, b, "a", "x")
	if err := b.Lock(t.Context(), "a", time.Now().Add(time.Hour)); !errors.Is(err, backup.ErrUnlocked) {
		t.Fatalf("lock: %v", err)
	}
	if until, err := b.LockedUntil(t.Context(), "a"); err != nil || !until.IsZero() {
		t.Fatalf("locked until %v, %v", until, err)
	}
	if _, err := b.LockedUntil(t.Context(), "b"); !errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("unknown: %v", err)
	}
	if err := b.Lock(t.Context(), "b", time.Now().Add(time.Hour)); !errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("lock unknown: %v", err)
	}
	if err := b.Replace(t.Context(), "a", []byte("y")); err != nil {
		t.Fatal(err)
	}
	has(t, b, "a", "y")
	if err := b.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	has(t, b, "a", "")
}

// Somebody with the rights to write and delete does what he can to a locked object.
func TestThief(t *testing.T) {
	s := server(t)
	c := raw(t, s)
	until := time.Now().Add(time.Hour)
	for _, locked := range []bool{true, false} {
		t.Run(fmt.Sprintf("locked %v", locked), func(t *testing.T) {
			b, bucket := create(t, s)
			put(t, b, "segments/a", "good")
			if locked {
				if err := b.Lock(t.Context(), "segments/a", until); err != nil {
					t.Fatal(err)
				}
			}
			key := aws.String("segments/a")
			for range 2 { // two markers
				if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: key}); err != nil {
					t.Fatal(err)
				}
			}
			has(t, b, "segments/a", "good")
			if err := b.Put(t.Context(), "segments/a", []byte("evil")); !errors.Is(err, backup.ErrExists) {
				t.Fatalf("put over what is hidden: %v", err)
			}
			got, err := b.LockedUntil(t.Context(), "segments/a")
			if err != nil || got.IsZero() == locked {
				t.Fatalf("locked until %v, %v", got, err)
			}
			if locked {
				later := until.Add(time.Hour)
				if err := b.Lock(t.Context(), "segments/a", later); err != nil {
					t.Fatalf("lock of what is hidden: %v", err)
				}
				if got, err := b.LockedUntil(t.Context(), "segments/a"); err != nil || got.Before(later) {
					t.Fatalf("locked until %v, %v", got, err)
				}
			}
			if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: key, Body: strings.NewReader("evil!")}); err != nil {
				t.Fatal(err)
			}
			if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: key}); err != nil {
				t.Fatal(err)
			}
			has(t, b, "segments/a", "evil!")
			err = b.Delete(t.Context(), "segments/a")
			all, lerr := c.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &bucket})
			if lerr != nil {
				t.Fatal(lerr)
			}
			if locked {
				if !errors.Is(err, backup.ErrLocked) || len(all.Versions) != 1 || len(all.DeleteMarkers) != 0 {
					t.Fatalf("delete: %v; %d versions, %d markers", err, len(all.Versions), len(all.DeleteMarkers))
				}
				has(t, b, "segments/a", "good")
				return
			}
			if err != nil || len(all.Versions)+len(all.DeleteMarkers) != 0 {
				t.Fatalf("delete: %v; %d versions, %d markers", err, len(all.Versions), len(all.DeleteMarkers))
			}
			has(t, b, "segments/a", "")
		})
	}
}

// A thief locks what he wrote over a locked object.
func TestReplace(t *testing.T) {
	s := server(t)
	b, bucket := create(t, s)
	until := time.Now().Add(time.Hour)
	put(t, b, "a", "good")
	if err := b.Lock(t.Context(), "a", until); err != nil {
		t.Fatal(err)
	}
	_, err := raw(t, s).PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &bucket, Key: aws.String("a"), Body: strings.NewReader("evil"),
		ObjectLockMode: types.ObjectLockModeCompliance, ObjectLockRetainUntilDate: &until,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "a"); !errors.Is(err, backup.ErrLocked) {
		t.Fatalf("delete: %v", err)
	}
	has(t, b, "a", "evil")
	if err := b.Replace(t.Context(), "a", []byte("good")); err != nil {
		t.Fatal(err)
	}
	has(t, b, "a", "good")
	if got, err := b.LockedUntil(t.Context(), "a"); err != nil || !got.IsZero() {
		t.Fatalf("the new version is locked until %v, %v", got, err)
	}
	if err := b.Lock(t.Context(), "a", until); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(t.Context(), "a"); !errors.Is(err, backup.ErrLocked) {
		t.Fatalf("delete: %v", err)
	}
	has(t, b, "a", "good")
	if err := b.Replace(t.Context(), "new", []byte("n")); err != nil {
		t.Fatal(err)
	}
	has(t, b, "new", "n")
}

// Locks that are not this package's.
func TestOtherLocks(t *testing.T) {
	s := server(t)
	c := raw(t, s)
	b, bucket := create(t, s)
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	put(t, b, "governance", "x")
	_, err := c.PutObjectRetention(t.Context(), &s3.PutObjectRetentionInput{
		Bucket: &bucket, Key: aws.String("governance"),
		Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeGovernance, RetainUntilDate: &until},
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "hold", "x")
	_, err = c.PutObjectLegalHold(t.Context(), &s3.PutObjectLegalHoldInput{
		Bucket: &bucket, Key: aws.String("hold"), LegalHold: &types.ObjectLockLegalHold{Status: types.ObjectLockLegalHoldStatusOn},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"governance", "hold"} {
		if got, err := b.LockedUntil(t.Context(), name); err != nil || !got.IsZero() {
			t.Errorf("%s: locked until %v, %v; somebody can end that", name, got, err)
		}
		if err := b.Delete(t.Context(), name); !errors.Is(err, backup.ErrLocked) {
			t.Errorf("%s: delete: %v", name, err)
		}
	}
	// Made firm it is not shorter.
	if err := b.Lock(t.Context(), "governance", until.Add(-30*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got, err := b.LockedUntil(t.Context(), "governance"); err != nil || !got.Equal(until) {
		t.Fatalf("locked until %v, %v; want %v", got, err, until)
	}
}

func TestLinger(t *testing.T) {
	s := server(t)
	c := raw(t, s)
	b, bucket := create(t, s)
	after, cause, err := b.Linger(t.Context())
	if err != nil || after != 0 {
		t.Fatalf("%v, %q, %v", after, cause, err)
	}
	t.Logf("a bucket with object lock: %q", cause)
	_, err = c.PutObjectLockConfiguration(t.Context(), &s3.PutObjectLockConfigurationInput{
		Bucket: &bucket, ObjectLockConfiguration: &types.ObjectLockConfiguration{
			ObjectLockEnabled: types.ObjectLockEnabledEnabled,
			Rule: &types.ObjectLockRule{DefaultRetention: &types.DefaultRetention{
				Mode: types.ObjectLockRetentionModeGovernance, Days: aws.Int32(30)}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	after, cause, err = b.Linger(t.Context())
	if err != nil || after != 30*24*time.Hour || !strings.Contains(cause, "30 days") {
		t.Fatalf("%v, %q, %v", after, cause, err)
	}
	put(t, b, "a", "x")
	if err := b.Delete(t.Context(), "a"); !errors.Is(err, backup.ErrLocked) {
		t.Fatalf("delete under the rule: %v", err)
	}
	plain := "bucket-plain"
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &plain}); err != nil {
		t.Fatal(err)
	}
	after, cause, err = open(t, s.URL, plain).Linger(t.Context())
	if err != nil || after != 0 {
		t.Fatalf("%v, %q, %v", after, cause, err)
	}
	t.Logf("a bucket without: %q", cause)
}

// front passes requests on to the real server, but those that answer takes.
func front(t *testing.T, s *realtest.S3Server, answer func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool) string {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host // it is signed
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answer(w, r, pass) {
			pass.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>secret of the server</Message></Error>", code)
}

// A store that has no call for versions, locks and replication.
func TestPlainStore(t *testing.T) {
	s := server(t)
	versioning := "" // what it says when it is asked
	endpoint := front(t, s, func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		q := r.URL.Query()
		switch {
		case q.Has("versioning") && versioning != "":
			fmt.Fprintf(w, "<VersioningConfiguration><Status>%s</Status></VersioningConfiguration>", versioning)
		case q.Has("lifecycle"):
			fmt.Fprint(w, `<LifecycleConfiguration><Rule><ID>r</ID><Status>Enabled</Status><Filter><Prefix></Prefix></Filter>
				<NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>`)
		case q.Has("versions"), q.Has("versioning"), q.Has("replication"), q.Has("object-lock"), q.Has("retention"), q.Has("legal-hold"):
			refuse(w, http.StatusNotImplemented, "NotImplemented")
		default:
			return false
		}
		return true
	})
	c := raw(t, s)
	newBucket := func(tb testing.TB) *s3store.Bucket {
		name := fmt.Sprintf("bucket-%d", buckets.Add(1))
		if _, err := c.CreateBucket(tb.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
			tb.Fatal(err)
		}
		return open(tb, endpoint, name)
	}
	backuptest.TestBucket(t, func(tb testing.TB) backup.Bucket { return newBucket(tb) })
	b := newBucket(t)
	put(t, b, "a", "x")
	if err := b.Lock(t.Context(), "a", time.Now().Add(time.Hour)); !errors.Is(err, backup.ErrUnlocked) {
		t.Fatalf("lock: %v", err)
	}
	if _, err := b.LockedUntil(t.Context(), "b"); !errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("unknown: %v", err)
	}
	after, cause, err := b.Linger(t.Context())
	if err != nil || after != 0 || !strings.Contains(cause, "no versions") || !strings.Contains(cause, "replicates") {
		t.Fatalf("%v, %q, %v", after, cause, err)
	}
	versioning = "Enabled"
	after, cause, err = b.Linger(t.Context())
	if err != nil || after != 8*24*time.Hour {
		t.Fatalf("%v, %q, %v", after, cause, err)
	}
}

// What a store says of replication and what it forbids to ask; the real server of the tests knows no replication.
func TestLingerAnswers(t *testing.T) {
	s := server(t)
	_, bucket := create(t, s)
	for _, c := range []struct {
		query, body string
		status      int
		code        string
		after       time.Duration
		cause       string
		err         error
	}{
		{query: "replication", body: `<ReplicationConfiguration><Role>r</Role><Rule><Status>Enabled</Status><Destination><Bucket>arn:aws:s3:::o</Bucket></Destination></Rule></ReplicationConfiguration>`,
			after: backup.Forever, cause: "replicated"},
		{query: "replication", body: `<ReplicationConfiguration><Role>r</Role><Rule><Status>Disabled</Status><Destination><Bucket>arn:aws:s3:::o</Bucket></Destination></Rule></ReplicationConfiguration>`},
		{query: "replication", status: 404, code: "ReplicationConfigurationNotFoundError"},
		{query: "replication", status: 501, code: "NotImplemented", cause: "does not say whether it replicates"},
		{query: "replication", status: 403, code: "AccessDenied", err: s3store.ErrDenied},
		{query: "object-lock", status: 403, code: "AccessDenied", err: s3store.ErrDenied},
		{query: "object-lock", status: 501, code: "NotImplemented", cause: "does not say whether it locks"},
		{query: "object-lock", body: `<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Years>2</Years></DefaultRetention></Rule></ObjectLockConfiguration>`,
			after: 732 * 24 * time.Hour, cause: "732 days"},
	} {
		b := open(t, front(t, s, func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			switch {
			case !r.URL.Query().Has(c.query) && r.URL.Query().Has("replication"):
				refuse(w, 404, "ReplicationConfigurationNotFoundError")
			case !r.URL.Query().Has(c.query):
				return false
			case c.code != "":
				refuse(w, c.status, c.code)
			default:
				fmt.Fprint(w, c.body)
			}
			return true
		}), bucket)
		after, cause, err := b.Linger(t.Context())
		if !errors.Is(err, c.err) || after != c.after || !strings.Contains(cause, c.cause) || c.cause == "" && cause != "" {
			t.Errorf("%s %s%s: %v, %q, %v", c.query, c.code, c.body, after, cause, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret of the server") {
			t.Errorf("the error has the server's words: %v", err)
		}
	}
}

// The answer to a write is lost: the client repeats it and meets its own object.
func TestLostAnswer(t *testing.T) {
	s := server(t)
	_, bucket := create(t, s)
	var lose atomic.Int32
	b := open(t, front(t, s, func(w http.ResponseWriter, r *http.Request, pass http.Handler) bool {
		if r.Method != http.MethodPut || lose.Add(-1) < 0 {
			return false
		}
		pass.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}), bucket)
	lose.Store(1)
	put(t, b, "a", "mine")
	has(t, b, "a", "mine")
	if err := b.Put(t.Context(), "a", []byte("mine")); !errors.Is(err, backup.ErrExists) {
		t.Fatalf("the same content by another writer: %v", err)
	}
	// Another writer is not done yet: the store tells to come again.
	var conflicts atomic.Int32
	conflicts.Store(3)
	b = open(t, front(t, s, func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method != http.MethodPut || conflicts.Add(-1) < 0 {
			return false
		}
		refuse(w, http.StatusConflict, "ConditionalRequestConflict")
		return true
	}), bucket)
	put(t, b, "b", "x")
	has(t, b, "b", "x")
}

// A store that takes requests and does not answer, or stops in the middle of an answer.
func TestSilence(t *testing.T) {
	s := server(t)
	whole, bucket := create(t, s)
	data := bytes.Repeat([]byte("x"), 1<<20)
	put(t, whole, "a", string(data))
	var silent, half atomic.Bool
	endpoint := front(t, s, func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if half.Load() && r.Method == http.MethodGet {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[:1000])
			w.(http.Flusher).Flush()
		}
		if silent.Load() || half.Load() {
			<-r.Context().Done()
			return true
		}
		return false
	})
	b, err := s3store.New(t.Context(), bucket, &s3store.Options{Endpoint: endpoint, PathStyle: true, Stall: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	silent.Store(true)
	if _, err := b.Get(t.Context(), "a", 0, 1); err == nil || errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("got %v", err)
	} else {
		t.Log(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := b.Get(ctx, "a", 0, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	silent.Store(false)
	half.Store(true)
	if got, err := b.Get(t.Context(), "a", 0, int64(len(data))); err == nil {
		t.Fatalf("%d bytes of an answer that stopped", len(got))
	} else {
		t.Log(err)
	}
}

// The condition of a write takes a delete marker for nothing, at AWS: the name is not asked for then.
func TestHiddenName(t *testing.T) {
	s := server(t)
	whole, bucket := create(t, s)
	put(t, whole, "a", "x")
	if _, err := raw(t, s).DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: aws.String("a")}); err != nil {
		t.Fatal(err)
	}
	var puts atomic.Int32
	b := open(t, front(t, s, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method == http.MethodPut {
			puts.Add(1)
		}
		return false
	}), bucket)
	if err := b.Put(t.Context(), "a", []byte("y")); !errors.Is(err, backup.ErrExists) || puts.Load() != 0 {
		t.Fatalf("%v, %d requests to write", err, puts.Load())
	}
	put(t, b, "b", "y")
	if puts.Load() != 1 {
		t.Fatalf("%d requests to write", puts.Load())
	}
}

func TestManyVersions(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of requests")
	}
	s := server(t)
	c := raw(t, s)
	b, bucket := create(t, s)
	var want []string
	var wg sync.WaitGroup
	limit := make(chan bool, 8)
	for i := range 700 {
		name := fmt.Sprintf("segments/%04d", i)
		want = append(want, name)
		wg.Go(func() {
			limit <- true
			defer func() { <-limit }()
			for v := range 2 {
				if err := b.Replace(t.Context(), name, bytes.Repeat([]byte("x"), v+1)); err != nil {
					t.Error(err)
				}
			}
			if i%3 == 0 {
				if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &name}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var got []string
	for o, err := range b.List(t.Context(), "segments/") {
		if err != nil {
			t.Fatal(err)
		}
		if o.Size != 2 {
			t.Fatalf("%s: the older version is listed", o.Name)
		}
		got = append(got, o.Name)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("%d names are listed, want %d", len(got), len(want))
	}
	for range 1200 { // more versions of one object than a page has
		if err := b.Replace(t.Context(), "segments/0001", []byte("y")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Delete(t.Context(), "segments/0001"); err != nil {
		t.Fatal(err)
	}
	has(t, b, "segments/0001", "")
	has(t, b, "segments/0002", "xx")
	for o, err := range b.List(t.Context(), "") { // a reader that stops
		if err != nil || o.Name != "segments/0000" {
			t.Fatal(o, err)
		}
		break
	}
}

func TestRanges(t *testing.T) {
	s := server(t)
	b, _ := create(t, s)
	put(t, b, "empty", "")
	put(t, b, "five", "hello")
	for _, c := range []struct {
		name           string
		offset, length int64
		want           string
	}{{"empty", 0, 0, ""}, {"empty", 0, 10, ""}, {"five", 5, 1, ""}, {"five", 100, 0, ""}, {"five", 4, 1<<63 - 1, "o"}, {"five", 0, 1<<63 - 1, "hello"}} {
		if got, err := b.Get(t.Context(), c.name, c.offset, c.length); err != nil || string(got) != c.want {
			t.Errorf("%s %d+%d: %q, %v", c.name, c.offset, c.length, got, err)
		}
	}
	if _, err := b.Get(t.Context(), "five", -1, 2); err == nil {
		t.Error("a negative offset was taken")
	}
	if _, err := b.Get(t.Context(), "never", 0, 0); !errors.Is(err, backup.ErrNotFound) {
		t.Errorf("no bytes of nothing: %v", err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 20<<16) // 20 MiB, one request
	if err := b.Put(t.Context(), "big", big); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Get(t.Context(), "big", 0, int64(len(big))+1); err != nil || !bytes.Equal(got, big) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestWrongCredentials(t *testing.T) {
	s := server(t)
	_, bucket := create(t, s)
	for _, c := range []struct{ key, secret string }{{"no-such-key", "no-such-secret"}, {s.Key, "wrong-secret"}, {s.User, s.UserSecret}} {
		s.Environ(c.key, c.secret)
		_, err := s3store.New(t.Context(), bucket, &s3store.Options{Endpoint: s.URL, PathStyle: true})
		if !errors.Is(err, s3store.ErrDenied) {
			t.Errorf("%s: %v", c.key, err)
			continue
		}
		t.Log(err)
		for _, secret := range []string{c.key, c.secret} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error has credentials: %v", err)
			}
		}
	}
	s.Environ("", "")
	_, err := s3store.New(t.Context(), bucket, &s3store.Options{Endpoint: s.URL, PathStyle: true})
	if err == nil {
		t.Error("opened without credentials")
	}
	t.Log(err)
}

// Credentials that are taken away, or never had all rights.
func TestRights(t *testing.T) {
	s := server(t)
	admin, bucket := create(t, s)
	c := raw(t, s)
	put(t, admin, "a", "x")
	allow := func(actions ...string) {
		t.Helper()
		policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":[%q]},"Action":["%s"],"Resource":["arn:aws:s3:::%s","arn:aws:s3:::%s/*"]}]}`,
			s.User, strings.Join(actions, `","`), bucket, bucket)
		if _, err := c.PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: &policy}); err != nil {
			t.Fatal(err)
		}
	}
	writer := []string{"s3:ListBucket", "s3:ListBucketVersions", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:GetObjectRetention", "s3:PutObjectRetention"}
	allow(writer...)
	s.Environ(s.User, s.UserSecret)
	b := open(t, s.URL, bucket)
	put(t, b, "b", "y")
	has(t, b, "b", "y")
	if err := b.Lock(t.Context(), "b", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	err := b.Delete(t.Context(), "a")
	if !errors.Is(err, s3store.ErrDenied) || errors.Is(err, backup.ErrLocked) {
		t.Fatalf("delete without the right to: %v", err)
	}
	t.Log(err)
	if _, _, err := b.Linger(t.Context()); !errors.Is(err, s3store.ErrDenied) {
		t.Fatalf("linger without the right to ask: %v", err)
	}
	allow("s3:ListBucket") // taken away
	for what, err := range map[string]error{
		"put":    b.Put(t.Context(), "c", []byte("z")),
		"delete": b.Delete(t.Context(), "b"),
		"lock":   b.Lock(t.Context(), "a", time.Now().Add(time.Hour)),
	} {
		if !errors.Is(err, s3store.ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := b.Get(t.Context(), "a", 0, 1); !errors.Is(err, s3store.ErrDenied) {
		t.Errorf("get: %v", err)
	}
}

func TestWrongBucket(t *testing.T) {
	s := server(t)
	_, err := s3store.New(t.Context(), "no-such-bucket", &s3store.Options{Endpoint: s.URL, PathStyle: true})
	if !errors.Is(err, s3store.ErrNoBucket) || errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	// The bucket goes while it is open: its objects are not "not found".
	b, bucket := create(t, s)
	if _, err := raw(t, s).DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
	_, gerr := b.Get(t.Context(), "a", 0, 1)
	for what, err := range map[string]error{"put": b.Put(t.Context(), "a", nil), "get": gerr, "delete": b.Delete(t.Context(), "a"), "lock": b.Lock(t.Context(), "a", time.Now().Add(time.Hour))} {
		if !errors.Is(err, s3store.ErrNoBucket) || errors.Is(err, backup.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, err := range b.List(t.Context(), "") {
		if !errors.Is(err, s3store.ErrNoBucket) {
			t.Errorf("list: %v", err)
		}
	}
}

func TestFull(t *testing.T) {
	s := realtest.S3Small(t, 4<<20)
	s.Environ(s.Key, s.Secret)
	b, _ := create(t, s)
	put(t, b, "small", "x")
	var err error
	for i := range 10 {
		if err = b.Put(t.Context(), fmt.Sprintf("segments/%d", i), make([]byte, 1<<20)); err != nil {
			if _, gerr := b.Get(t.Context(), fmt.Sprintf("segments/%d", i), 0, 1); !errors.Is(gerr, backup.ErrNotFound) {
				t.Fatalf("something was written: %v", gerr)
			}
			break
		}
	}
	if !errors.Is(err, backup.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	has(t, b, "small", "x")
}

// The connection, and then the server, go while an object is on its way.
func TestVanishing(t *testing.T) {
	s := server(t)
	_, bucket := create(t, s)
	p := realtest.NewProxy(t, strings.TrimPrefix(s.URL, "http://"))
	b := open(t, "http://"+p.Addr, bucket)
	put(t, b, "before", "x")
	p.CutAfter(1 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	data := make([]byte, 4<<20)
	err := b.Put(ctx, "half", data)
	if err == nil || errors.Is(err, backup.ErrExists) || errors.Is(err, backup.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	t.Log(err)
	p.Down(false)
	has(t, b, "half", "")
	has(t, b, "before", "x")
	if err := b.Put(ctx, "half", data); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	_, gerr := b.Get(ctx, "before", 0, 1)
	for what, err := range map[string]error{"get": gerr, "put": b.Put(ctx, "c", nil), "delete": b.Delete(ctx, "before")} {
		if err == nil || errors.Is(err, backup.ErrNotFound) || errors.Is(err, backup.ErrLocked) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.Restart()
	has(t, b, "before", "x")
	got, err := b.Get(ctx, "half", 0, int64(len(data)))
	if err != nil || len(got) != len(data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestRefusedURLs(t *testing.T) {
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	for _, u := range []string{"", "bucket", "s3://", "s3:///bucket", "s3://bucket/path", "s3://key:hunter2@bucket", "s3://bucket#x",
		"s3://bucket?endpoint=ftp://x", "s3://bucket?endpoint=http://key:hunter2@x", "s3://bucket?region=a&region=b", "s3://bucket?access_key=hunter2",
		"s3://bucket?use_path_style=perhaps", "s3://bucket?prefix=..", "s3://bucket?prefix=/a", "s3://bucket?prefix=A", "s3://bucket?a=%zz", "file:///tmp", "s3://\x7f"} {
		_, err := s3store.Open(t.Context(), u)
		if err == nil {
			t.Errorf("%q was taken", u)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error tells the password", u)
		}
	}
}

func TestRefusedNames(t *testing.T) {
	s := server(t)
	b, _ := create(t, s)
	for _, name := range []string{"", "/", "a/", "/a", "a//b", "../a", "A", "a b", "a.tmp", "客户"} {
		_, gerr := b.Get(t.Context(), name, 0, 1)
		_, lerr := b.LockedUntil(t.Context(), name)
		for what, err := range map[string]error{"put": b.Put(t.Context(), name, nil), "get": gerr, "delete": b.Delete(t.Context(), name),
			"replace": b.Replace(t.Context(), name, nil), "lock": b.Lock(t.Context(), name, time.Now().Add(time.Hour)), "locked": lerr} {
			if err == nil {
				t.Errorf("%s %q was taken", what, name)
			}
		}
	}
}
