package main

import "fmt"

// phrasebook is what a demo says, in one language.
type phrasebook struct {
	language string

	// the chat
	starting, stopped    string
	chat                 string // a format; see demoChat
	enforcing, observing string
	removed, kept        string
	onScreen             string

	// the attack
	making, past                          string
	straight, established, firstDay       string
	progress                              string // a format; see view.watch
	attack, office                        string
	heads                                 []string
	attempts, reached, lost, first, never string
	logins, refused, steppedUp            string
	delayed, deceived                     string
	closedEnforcing, closedObserving      string // formats; see closing
	reported                              string
}

func phrases(language string) phrasebook {
	if language == "ja" {
		return japanese
	}
	return english
}

// closing says in a sentence or two what the table shows.
func (p phrasebook) closing(s attackScore, observed bool) string {
	if observed {
		return fmt.Sprintf(p.closedObserving, number(int64(s.Guarded.Attack.AccountsLost)))
	}
	b := s.Guarded.Benign
	return fmt.Sprintf(p.closedEnforcing, number(int64(s.Unprotected.Attack.AccountsLost)), number(int64(s.Guarded.Attack.AccountsLost)),
		number(int64(b.Logins)), number(int64(b.Refused+b.SteppedUp+b.DelayedOver1s+b.Deceived)))
}

var english = phrasebook{
	language: "en",
	starting: "Making a chat service full of people and putting the gate in front of it ...",
	stopped:  "Stopped.",
	chat: `
  Chat        %[1]s
              Your browser will warn: the certificate is of an authority that only this
              demo knows (%[2]s).
  Log in as   %[3]s   %[4]s
  and, in a second browser, a colleague of the same company (%[5]s):
              %[6]s   %[7]s

  Operators   %[8]s   key %[9]s
              curl -H 'Authorization: Bearer %[10]s' %[11]s/v1/health

  %[12]s %[13]d people have accounts; their passwords are hashed with argon2id
  far too cheaply (64 KiB, one pass), because this is a demonstration.
  Log: %[14]s
  %[15]s

What to try
  1. Open the same room in both browsers and write: the other one sees it at once.
  2. Try a stolen list from somewhere else (this demo lets you choose an address):
       for i in $(seq 15); do curl -sk -o /dev/null -w '%%{http_code} ' -H 'X-Forwarded-For: 203.0.113.9' \
         --json "{\"email\":\"user$i@list.example\",\"password\":\"stolen\"}" %[16]s/login; done; echo
     After eight names the 401 of the chat becomes the 403 of the gate. See why, and until when:
       curl -s -H 'Authorization: Bearer %[10]s' %[11]s/v1/decisions
  3. Copy the cookie chat_session out of one browser: without the gate's own cookie it opens nothing.
  4. Stop this and run it with --attack list: an office on Monday beside ten thousand stolen pairs.

Stop with Ctrl-C.
`,
	enforcing: "The gate acts (--mode observe would only watch).",
	observing: "The gate only watches: nothing is refused, `kidoban report` says what would have been.",
	removed:   "Everything is in a temporary directory that is removed at the end.",
	kept:      "Everything is kept in %s; everybody's password is in %s.",
	onScreen:  "standard error",

	making:          "Making a chat service with an office and other companies ...",
	past:            "Giving the gate three days of past ...",
	straight:        "without the gate",
	established:     "after three days",
	firstDay:        "first day",
	progress:        "%-16s  attack: %s of %s tried, %s stopped, %s let in   office: %s of %s in, %s harmed",
	attack:          "The attack",
	heads:           []string{"without the gate", "after three days", "first day"},
	attempts:        "  pairs tried",
	reached:         "  reached the chat service",
	lost:            "  accounts lost",
	first:           "  attempts before the first was stopped",
	never:           "never",
	office:          "The office",
	logins:          "  log-ins with the right password",
	refused:         "  turned away",
	steppedUp:       "  asked for further proof",
	delayed:         "  kept waiting for over a second",
	deceived:        "  told that the right password is wrong",
	closedEnforcing: "Without the gate the list opened %s accounts, through it at most %s. Of %s log-ins from the office the gate harmed %s.",
	closedObserving: "The gate only watched, so through it the list opened up to %s accounts too and nobody noticed anything.",
	reported:        "What kidoban report says of the passes through the gate:",
}

var japanese = phrasebook{
	language: "ja",
	starting: "チャットサービスを用意し、その前に Kidoban を立てています ...",
	stopped:  "終了しました。",
	chat: `
  チャット    %[1]s
              証明書はこのデモ専用の認証局のものなので、ブラウザが警告を出します
              (%[2]s)。
  ログイン    %[3]s   %[4]s
  別のブラウザでは同じ会社(%[5]s)の同僚として:
              %[6]s   %[7]s

  運用者      %[8]s   キー %[9]s
              curl -H 'Authorization: Bearer %[10]s' %[11]s/v1/health

  %[12]s アカウントは %[13]d 人分です。デモのため、パスワードのハッシュ
  (argon2id、64 KiB、1 回)は極端に軽くしてあります。
  ログ: %[14]s
  %[15]s

試してみること
  1. 二つのブラウザで同じルームを開いて書き込むと、もう一方にすぐ表示されます。
  2. 別の場所から流出リストを試します(このデモでは送信元アドレスを選べます):
       for i in $(seq 15); do curl -sk -o /dev/null -w '%%{http_code} ' -H 'X-Forwarded-For: 203.0.113.9' \
         --json "{\"email\":\"user$i@list.example\",\"password\":\"stolen\"}" %[16]s/login; done; echo
     八つ目の名前のあと、チャットの 401 が Kidoban の 403 に変わります。理由と期限は:
       curl -s -H 'Authorization: Bearer %[10]s' %[11]s/v1/decisions
  3. 一方のブラウザから Cookie chat_session を写し取っても、Kidoban の Cookie がなければ何も開けません。
  4. 終了して --attack list を付けて実行すると、月曜朝のオフィスと一万件の流出リストを再現します。

終了は Ctrl-C です。
`,
	enforcing: "Kidoban は実際に働きます(--mode observe で観察のみ)。",
	observing: "Kidoban は観察だけを行い、何も拒否しません。何が起きたはずかは kidoban report が示します。",
	removed:   "すべては一時ディレクトリにあり、終了時に削除されます。",
	kept:      "すべては %s に残ります。全員のパスワードは %s にあります。",
	onScreen:  "標準エラー出力",

	making:          "オフィスとほかの会社のあるチャットサービスを用意しています ...",
	past:            "Kidoban に三日分の過去を与えています ...",
	straight:        "Kidoban なし",
	established:     "導入三日後",
	firstDay:        "導入初日",
	progress:        "%s  攻撃: %s / %s 件試行、%s 件阻止、%s 件侵入   オフィス: %s / %s 人ログイン、被害 %s",
	attack:          "攻撃",
	heads:           []string{"Kidoban なし", "導入三日後", "導入初日"},
	attempts:        "  試された組",
	reached:         "  チャットに届いた試行",
	lost:            "  奪われたアカウント",
	first:           "  最初に止めるまでの試行",
	never:           "止まらず",
	office:          "オフィス",
	logins:          "  正しいパスワードでのログイン",
	refused:         "  拒まれた",
	steppedUp:       "  追加の確認を求められた",
	delayed:         "  一秒を超えて待たされた",
	deceived:        "  正しいのに誤りと言われた",
	closedEnforcing: "Kidoban がなければリストで %s 件のアカウントが開かれ、あれば多くて %s 件でした。オフィスのログイン %s 件のうち、妨げたものは %s 件です。",
	closedObserving: "観察だけだったため、Kidoban を通してもリストで最大 %s 件のアカウントが開かれ、誰も何にも気づきませんでした。",
	reported:        "Kidoban を通した回について kidoban report が示すもの:",
}
