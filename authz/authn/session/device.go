package session

import (
	"context"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Device is what is kept of a user agent: its families, no versions, nothing that would tell one machine from
// another.
type Device struct {
	Browser string `json:"browser"` // "Firefox"; "other"
	System  string `json:"system"`  // "Windows"; "other"
	Kind    string `json:"kind"`    // "computer", "phone", "tablet" or "program"
}

// String returns for example "Firefox, Windows, computer".
func (d Device) String() string { return d.Browser + ", " + d.System + ", " + d.Kind }

var (
	// In this order: a browser names those that it descends from too.
	browsers = []struct{ mark, name string }{
		{"MicroMessenger/", "WeChat"}, {"DingTalk/", "DingTalk"}, {"Edg/", "Edge"}, {"EdgA/", "Edge"}, {"EdgiOS/", "Edge"},
		{"OPR/", "Opera"}, {"SamsungBrowser/", "Samsung Internet"},
		{"FxiOS/", "Firefox"}, {"Firefox/", "Firefox"}, {"CriOS/", "Chrome"}, {"HeadlessChrome/", "Chrome"}, {"Chrome/", "Chrome"}, {"Version/", "Safari"},
	}
	systems = []struct{ mark, name string }{
		{"Windows", "Windows"}, {"iPhone", "iOS"}, {"iPad", "iOS"}, {"HarmonyOS", "HarmonyOS"}, {"Android", "Android"},
		{"CrOS", "ChromeOS"}, {"Macintosh", "macOS"}, {"Linux", "Linux"},
	}
)

// ParseDevice reads a User-Agent header. It never fails: what it does not know is "other".
func ParseDevice(agent string) Device {
	agent = agent[:min(len(agent), 1024)]
	d := Device{Browser: "other", System: "other", Kind: "computer"}
	for _, b := range browsers {
		if strings.Contains(agent, b.mark) {
			d.Browser = b.name
			break
		}
	}
	for _, s := range systems {
		if strings.Contains(agent, s.mark) {
			d.System = s.name
			break
		}
	}
	switch {
	case !strings.HasPrefix(agent, "Mozilla/"):
		d.Kind = "program"
	case strings.Contains(agent, "iPad") || d.System == "Android" && !strings.Contains(agent, "Mobile"):
		d.Kind = "tablet"
	case strings.Contains(agent, "Mobile"):
		d.Kind = "phone"
	}
	return d
}

// Place is where a session is used from, coarsely.
type Place struct {
	Network   string   `json:"network"`             // "192.0.2.0/24", "2001:db8:1::/48"; "" when the address is unknown
	Name      string   `json:"name,omitempty"`      // as a locator names it
	Latitude  *float64 `json:"latitude,omitempty"`  // degrees; nil when no locator knows it
	Longitude *float64 `json:"longitude,omitempty"` // degrees
}

// NetworkOf returns the network of an address that is kept of it: /24 of IPv4 and /48 of IPv6, "" of none.
func NetworkOf(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil || !addr.IsValid() {
		return ""
	}
	return p.String()
}

// Locator tells where an address is, as far as a city. ok is false when it does not know. It must answer at once: it
// is asked when a session starts, and when its network changes.
type Locator interface {
	Locate(ctx context.Context, addr netip.Addr) (name string, latitude, longitude float64, ok bool)
}

func (m *Manager) place(ctx context.Context, addr netip.Addr) Place {
	p := Place{Network: NetworkOf(addr)}
	if m.opts.Locator == nil || !addr.IsValid() {
		return p
	}
	name, lat, lon, ok := m.opts.Locator.Locate(ctx, addr.Unmap())
	if ok && math.Abs(lat) <= 90 && math.Abs(lon) <= 180 { // false of NaN too
		lat, lon = math.Round(lat*10)/10, math.Round(lon*10)/10 // ten kilometres
		p.Name, p.Latitude, p.Longitude = name, &lat, &lon
	}
	return p
}

// distance is along the surface of the earth, in kilometres; 0 when one place is not known.
func distance(a, b Place) float64 {
	if a.Latitude == nil || b.Latitude == nil || a.Longitude == nil || b.Longitude == nil {
		return 0
	}
	rad := func(d float64) float64 { return d * math.Pi / 180 }
	sin2 := func(x float64) float64 { s := math.Sin(x / 2); return s * s }
	h := sin2(rad(*b.Latitude-*a.Latitude)) + math.Cos(rad(*a.Latitude))*math.Cos(rad(*b.Latitude))*sin2(rad(*b.Longitude-*a.Longitude))
	return 2 * 6371 * math.Asin(math.Sqrt(min(1, h)))
}

// Visit is what a request tells of its sender.
type Visit struct {
	Addr  netip.Addr // the zero Addr when it is unknown
	Agent string     // the User-Agent header
}

// VisitOf takes the address of the connection and the User-Agent. Behind a proxy the composition puts the client's
// address in.
func VisitOf(r *http.Request) Visit {
	v := Visit{Agent: r.UserAgent()}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err == nil {
		v.Addr, _ = netip.ParseAddr(host)
	}
	return v
}
