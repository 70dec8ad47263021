package web_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoomsAPI(t *testing.T) {
	s := newSite(t)
	ann, ben, out := s.token(s.login(s.one[0])), s.token(s.login(s.one[1])), s.token(s.login(s.two[0]))
	one, two, stranger := s.one[0].ID, s.one[1].ID, s.two[0].ID
	var made struct {
		RoomID int64 `json:"room_id"`
	}
	s.decode(s.do("POST", "/v2/rooms", form("name", "企画 2027", "description", "来期", "members_admin_ids", fmt.Sprint(one),
		"members_readonly_ids", fmt.Sprint(two), "icon_preset", "idea", "link", "0"), ann, asForm), 200, &made)
	room := fmt.Sprint("/v2/rooms/", made.RoomID)

	var posted struct {
		MessageID string `json:"message_id"`
	}
	s.decode(s.do("POST", room+"/messages", form("body", fmt.Sprintf("[To:%d] はじめます", two), "self_unread", "0"), ann, asForm), 200, &posted)
	message := room + "/messages/" + posted.MessageID

	for _, tt := range []struct {
		name, method, path, body, who string
		status                        int
		want                          string // in the body
	}{
		{"room", "GET", room, "", ben, 200, `"role":"readonly"`},
		{"room's counts", "GET", room, "", ben, 200, `"unread_num":1,"mention_num":1`},
		{"room's description", "GET", room, "", ben, 200, `"description":"来期"`},
		{"a form's type on GET", "GET", room, "", ben, 200, ""},
		{"message", "GET", message, "", ben, 200, `"update_time":0`},
		{"fetch", "GET", room + "/messages", "", ben, 200, `"message_id":"` + posted.MessageID + `"`},
		{"fetch again", "GET", room + "/messages", "", ben, 204, ""},
		{"fetch by force", "GET", room + "/messages?force=1", "", ben, 200, "はじめます"},
		{"odd force", "GET", room + "/messages?force=yes", "", ben, 400, "force must be 0 or 1"},
		{"read", "PUT", room + "/messages/read", "message_id=" + posted.MessageID, ben, 200, `{"mention_num":0,"unread_num":0}`},
		{"reader posts", "POST", room + "/messages", "body=x", ben, 403, ""},
		{"reader sets members", "PUT", room + "/members", form("members_admin_ids", fmt.Sprint(two)), ben, 403, ""},
		{"empty message", "POST", room + "/messages", "body=+", ann, 400, "body is required"},
		{"long message", "POST", room + "/messages", "body=" + strings.Repeat("x", 65536), ann, 400, ""},
		{"longest message", "POST", room + "/messages", "body=" + strings.Repeat("%E3%81%82", 65535), ann, 200, ""},
		{"too many bytes", "POST", room + "/messages", "body=" + strings.Repeat("x", 1<<20), ann, 413, ""},
		{"control characters", "POST", room + "/messages", "body=%00", ann, 400, ""},
		{"members", "GET", room + "/members", "", ben, 200, `"role":"admin"`},
		{"a stranger as member", "PUT", room + "/members", form("members_admin_ids", fmt.Sprint(one, ",", stranger)), ann, 400, "your organization"},
		{"no administrator", "PUT", room + "/members", form("members_member_ids", fmt.Sprint(one)), ann, 400, ""},
		{"odd numbers", "PUT", room + "/members", form("members_admin_ids", "1;2"), ann, 400, ""},
		{"members set", "PUT", room + "/members", form("members_admin_ids", fmt.Sprint(one), "members_member_ids", fmt.Sprint(two)), ann, 200,
			fmt.Sprintf(`{"admin":[%d],"member":[%d],"readonly":[]}`, one, two)},
		{"member posts", "POST", room + "/messages", "body=x", ben, 200, ""},
		{"room without a name", "POST", "/v2/rooms", form("members_admin_ids", fmt.Sprint(one)), ann, 400, "name is required"},
		{"room with a link", "POST", "/v2/rooms", form("name", "x", "members_admin_ids", fmt.Sprint(one), "link", "1"), ann, 400, ""},
		{"room with an odd icon", "POST", "/v2/rooms", form("name", "x", "members_admin_ids", fmt.Sprint(one), "icon_preset", "x"), ann, 400, ""},
		{"not there", "GET", "/v2/rooms/999999", "", ann, 404, ""},
		{"no number", "GET", "/v2/rooms/x", "", ann, 404, ""},
		{"overflow", "GET", "/v2/rooms/99999999999999999999", "", ann, 404, ""},
		{"unknown path", "GET", "/v2/contacts/x", "", ann, 404, `{"errors":[`},
	} {
		got := s.do(tt.method, tt.path, tt.body, tt.who, asForm)
		if got.status != tt.status || !strings.Contains(got.body, tt.want) {
			t.Errorf("%s: %d, want %d with %s: %.300s", tt.name, got.status, tt.status, tt.want, got.body)
		}
		if tt.status == 204 && got.body != "" {
			t.Errorf("%s: 204 with a body", tt.name)
		}
		var e struct{ Errors []string }
		if tt.status >= 400 && (json.Unmarshal([]byte(got.body), &e) != nil || len(e.Errors) != 1) {
			t.Errorf("%s: not an error: %s", tt.name, got.body)
		}
	}

	// To another organization the room is as one that does not exist.
	for _, tt := range []struct{ method, path, body string }{
		{"GET", "", ""}, {"GET", "/members", ""}, {"GET", "/messages?force=1", ""}, {"GET", "/messages/" + posted.MessageID, ""},
		{"POST", "/messages", "body=x"}, {"PUT", "/messages/read", ""}, {"PUT", "/members", form("members_admin_ids", fmt.Sprint(stranger))},
	} {
		here := s.do(tt.method, room+tt.path, tt.body, out, asForm)
		nowhere := s.do(tt.method, "/v2/rooms/999999"+tt.path, tt.body, out, asForm)
		if here.status != 404 || here.body != nowhere.body {
			t.Errorf("%s %s: %d %s and %d %s", tt.method, tt.path, here.status, here.body, nowhere.status, nowhere.body)
		}
	}
	var rooms []struct{ Name string }
	s.decode(s.do("GET", "/v2/rooms", "", out), 200, &rooms)
	for _, r := range rooms {
		if r.Name == "企画 2027" {
			t.Error("another organization's room is listed")
		}
	}
}

// TestPostForm posts as a browser without scripts does.
func TestPostForm(t *testing.T) {
	s := newSite(t)
	cookie, room := s.login(s.one[0]), s.company(s.one)
	for _, tt := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"message", form("body", "<b>太字</b>"), 303, ""},
		{"empty", form("body", " "), 400, "メッセージが入力されていません。"},
		{"too long", form("body", "draft"+strings.Repeat("x", 65535)), 400, "draftxxx"},
	} {
		got := s.do("POST", room+"/messages", tt.body, cookie, asForm)
		if got.status != tt.status || !strings.Contains(got.body, tt.want) {
			t.Errorf("%s: %d %.200s", tt.name, got.status, got.body)
		}
	}
	got := s.do("GET", room, "", cookie)
	if !strings.Contains(got.body, "&lt;b&gt;太字&lt;/b&gt;") || strings.Contains(got.body, "<b>太字") {
		t.Error("the page does not escape the message")
	}
	if got := s.do("POST", room+"/read", "", cookie); got.status != 303 {
		t.Errorf("read: %d", got.status)
	}
	if got := s.do("GET", room, "", s.login(s.two[0])); got.status != 404 {
		t.Errorf("another organization's page: %d", got.status)
	}
}

func TestPagesOfMessages(t *testing.T) {
	s := newSite(t)
	cookie := s.login(s.one[0])
	room := s.company(s.one)
	for i := range 130 {
		if got := s.do("POST", "/v2"+room+"/messages", fmt.Sprint("body=number-", i, "."), cookie, asForm); got.status != 200 {
			t.Fatal(got.body)
		}
	}
	latest := s.do("GET", room, "", cookie).body
	_, rest, ok := strings.Cut(latest, "?before=")
	id, _, _ := strings.Cut(rest, `"`)
	if !ok || !strings.Contains(latest, "number-129.") || strings.Contains(latest, "number-29.") {
		t.Fatal("the latest page is not the latest hundred")
	}
	earlier := s.do("GET", room+"?before="+id, "", cookie).body
	if !strings.Contains(earlier, "number-29.") || strings.Contains(earlier, "number-30.") {
		t.Error("the page before does not end where the latest begins")
	}
	if d := cmp.Diff(1, strings.Count(earlier, "number-0.")); d != "" {
		t.Error(d)
	}
}
