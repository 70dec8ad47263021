package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/kidoban/kidoban/chatcore/chat"
	"github.com/kidoban/kidoban/chatcore/web"
)

type feed struct {
	Cursor string
	TooOld bool `json:"too_old"`
	Events []struct {
		Type    string
		RoomID  int64 `json:"room_id"`
		Message struct{ Body string }
	}
}

func (f feed) bodies() (out []string) {
	for _, e := range f.Events {
		out = append(out, e.Message.Body)
	}
	return out
}

func (s *site) post(header, room, body string) {
	s.t.Helper()
	if got := s.do("POST", "/v2"+room+"/messages", form("body", body), header, asForm); got.status != 200 {
		s.t.Fatalf("%d %s", got.status, got.body)
	}
}

func TestPoll(t *testing.T) {
	s := newSite(t)
	ann, ben, dan := s.login(s.one[0]), s.login(s.one[1]), s.login(s.two[0])
	room := s.company(s.one)
	poll := func(who, query string) (f feed) {
		t.Helper()
		s.decode(s.do("GET", "/events/poll"+query, "", who), 200, &f)
		return f
	}
	start := poll(ben, "")
	if len(start.Events) > 0 {
		t.Errorf("without a cursor: %+v", start)
	}
	// A waiting poll hears of the message. Whether it waits already when the
	// message comes does not matter: the cursor makes both alike.
	heard := make(chan feed)
	go func() { heard <- poll(ben, "?cursor="+start.Cursor) }()
	s.post(ann, room, "one")
	if got := <-heard; fmt.Sprint(got.bodies()) != "[one]" {
		t.Errorf("heard %+v", got)
	}
	s.post(ann, room, "two")
	if got := poll(ben, "?cursor="+start.Cursor); fmt.Sprint(got.bodies()) != "[one two]" {
		t.Errorf("resumed %+v", got)
	}
	if got := poll(dan, "?wait=0&cursor="+start.Cursor); len(got.Events) > 0 || got.Cursor == start.Cursor {
		t.Errorf("another organization hears %+v", got)
	}
	for query, status := range map[string]int{"?cursor=x": 400, "?cursor=-1": 400, "?wait=26": 400, "?wait=x": 400, "?cursor=999999": 410} {
		if got := s.do("GET", "/events/poll"+query, "", ben); got.status != status {
			t.Errorf("%s: %d, want %d: %s", query, got.status, status, got.body)
		}
	}
	if got := s.do("GET", "/events/poll", ""); got.status != 401 {
		t.Errorf("nobody: %d", got.status)
	}
}

// dial opens a WebSocket and reads its first message.
func (s *site) dial(header, query string) (*websocket.Conn, feed) {
	s.t.Helper()
	k, v, _ := strings.Cut(header, ": ")
	conn, _, err := websocket.Dial(s.t.Context(), s.URL+"/events/ws"+query, &websocket.DialOptions{HTTPHeader: http.Header{k: {v}}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.CloseNow() })
	return conn, s.receive(conn)
}

func (s *site) receive(conn *websocket.Conn) (f feed) {
	s.t.Helper()
	_, b, err := conn.Read(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		s.t.Fatal(err)
	}
	return f
}

func TestWebSocket(t *testing.T) {
	s := newSite(t)
	ann := s.login(s.one[0])
	ben := s.token(s.login(s.one[1]))
	room := s.company(s.one)
	conn, hello := s.dial(ben, "")
	if hello.Cursor == "" || len(hello.Events) > 0 {
		t.Errorf("first message %+v", hello)
	}
	s.post(ann, room, "one")
	got := s.receive(conn)
	if fmt.Sprint(got.bodies()) != "[one]" {
		t.Errorf("received %+v", got)
	}
	conn.CloseNow()
	s.post(ann, room, "two")
	s.post(ann, room, "three")
	conn, _ = s.dial(ben, "?cursor="+got.Cursor)
	var resumed []string
	for len(resumed) < 2 {
		resumed = append(resumed, s.receive(conn).bodies()...)
	}
	if fmt.Sprint(resumed) != "[two three]" {
		t.Errorf("resumed with %v", resumed)
	}
	conn, _ = s.dial(ben, "?cursor=999999")
	if got := s.receive(conn); !got.TooOld {
		t.Errorf("a cursor from nowhere: %+v", got)
	}
}

// TestEndings checks that what was begun with a credential ends with it.
func TestEndings(t *testing.T) {
	s := newSite(t)
	a := s.one[0]
	end := map[string]func(cookie string){
		"logout": func(cookie string) { s.do("POST", "/logout", "", cookie) },
		"password change elsewhere": func(string) {
			s.do("POST", "/password", form("current_password", a.Password, "new_password", a.Password+"2"), s.login(a), asForm)
			a.Password += "2"
		},
	}
	for name, f := range end {
		t.Run(name, func(t *testing.T) {
			cookie := s.login(a)
			conn, hello := s.dial(cookie, "")
			polled := make(chan int)
			go func() { polled <- s.do("GET", "/events/poll?cursor="+hello.Cursor, "", cookie).status }()
			f(cookie)
			if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != 4401 {
				t.Errorf("the socket ends with %v", err)
			}
			if status := <-polled; status != 401 {
				t.Errorf("the poll ends with %d", status)
			}
		})
	}
	t.Run("token", func(t *testing.T) {
		cookie := s.login(a)
		conn, _ := s.dial(s.token(cookie), "")
		var list []struct {
			TokenID int64 `json:"token_id"`
		}
		s.decode(s.do("GET", "/v2/my/tokens", "", cookie), 200, &list)
		s.do("DELETE", fmt.Sprint("/v2/my/tokens/", list[0].TokenID), "", cookie)
		if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != 4401 {
			t.Errorf("the socket ends with %v", err)
		}
	})
	t.Run("service", func(t *testing.T) {
		conn, _ := s.dial(s.login(a), "")
		s.svc.EndLive()
		if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("the socket ends with %v", err)
		}
	})
}

// events is a source that tells what comes over a channel.
type events struct {
	next  chan chat.Feed
	ended bool
}

func (e *events) Next(ctx context.Context) (chat.Feed, error) {
	select {
	case f := <-e.next:
		return f, nil
	case <-ctx.Done():
		return chat.Feed{}, ctx.Err()
	}
}

func (e *events) Check() error {
	if e.ended {
		return chat.ErrCredential
	}
	return nil
}

func (e *events) Cursor() chat.EventID { return 1 }

// client is a sink that stops reading after some messages and notes pings.
type client struct {
	reads int
	pings []time.Time
	deaf  bool
}

func (c *client) Write(ctx context.Context, _ []byte) error {
	if c.reads--; c.reads >= 0 {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (c *client) Ping(ctx context.Context) error {
	c.pings = append(c.pings, time.Now())
	if c.deaf {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func TestPump(t *testing.T) {
	t.Run("a client that does not read is cut off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			from := &events{next: make(chan chat.Feed, 9)}
			for range 9 {
				from.next <- chat.Feed{}
			}
			start := time.Now()
			err := web.Pump(t.Context(), from, &client{reads: 3})
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != web.WriteLimit {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
			if len(from.next) != 6 {
				t.Errorf("%d feeds are left, want 6: one at a time is under way", len(from.next))
			}
		})
	})
	t.Run("a quiet client is asked and lives", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*web.PingEvery+time.Second)
			defer cancel()
			c := &client{reads: 1}
			if err := web.Pump(ctx, &events{}, c); !errors.Is(err, context.DeadlineExceeded) || len(c.pings) != 10 {
				t.Errorf("%d pings, %v", len(c.pings), err)
			}
		})
	})
	t.Run("a dead client is given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			web.Pump(t.Context(), &events{}, &client{reads: 1, deaf: true})
			if got := time.Since(start); got != web.PingEvery+web.WriteLimit {
				t.Errorf("given up after %s", got)
			}
		})
	})
	t.Run("an ended credential is noticed without news", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			err := web.Pump(t.Context(), &events{ended: true}, &client{reads: 1})
			if !errors.Is(err, chat.ErrCredential) || time.Since(start) != web.PingEvery {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
		})
	})
}
