// Channels: a list a page at a time, one of them with its members, a test event, and the end of a user.

const channels = { asked: {}, rows: [], next: null, shown: null };

function makeChannels() {
  channels.list = h("div", {});
  channels.more = h("div", { class: "buttons" });
  channels.one = h("div", { class: "one" });
  channels.users = h("div", {});
  channels.dialect = h("select", {}, h("option", { value: "" }, "all"));
  const form = h("form", { class: "filters", role: "search", onsubmit: search },
    field("Name begins with", "prefix", { type: "search", size: "wide" }), field("Application", "application"), field("Dialect", "dialect", { element: channels.dialect }),
    h("div", { class: "buttons" }, h("button", { class: "primary" }, "List")));
  function search(event) {
    event.preventDefault();
    channels.asked = Object.fromEntries(new FormData(form));
    loadChannels();
  }
  put($("channels"),
    h("div", { class: "split" },
      card("Channels", form, channels.list, channels.more),
      channels.one),
    h("div", { class: "split" }, channels.users, makeBroadcasts()));
}

function dialectChoice() {
  return h("select", {}, farm.session.dialects.map((name) => h("option", { value: name }, name)));
}

/** What depends on who asks, and on what is on. */
function drawChannelForms() {
  fill(channels.dialect, h("option", { value: "" }, "all"), farm.session.dialects.map((name) => h("option", { value: name }, name)));
  fill(channels.users, mayAct() && card("Users", actForm("Close the connections of a user", [
    field("User", "user", { required: true, size: "wide" }), field("Dialect", "dialect", { element: dialectChoice() }), field("Application", "application")],
  "Terminate", async ({ user, dialect, application }) => {
    if (!(await confirmed("Terminate the user?", `All connections of ${user} are closed.`, "Terminate", true))) return "";
    await api("POST", ["users", dialect, user, "terminate"], { query: { application } });
    return `The connections of ${user} are closed.`;
  })));
}

async function loadChannels(after) {
  const { asked } = channels;
  try {
    const found = await api("GET", ["channels"], { query: { ...asked, after, limit: 50 } });
    if (channels.asked !== asked || (after && channels.next !== after)) return; // something else was asked for, or this twice
    channels.rows = after ? [...channels.rows, ...found.channels] : found.channels;
    channels.next = found.next;
  } catch (error) {
    fill(channels.list, problem(error));
    return;
  }
  drawChannels();
  announce(plural(channels.rows.length, "channel"));
}

function drawChannels() {
  const rows = channels.rows.map((row) => [
    h("a", { href: channelHash(row) }, row.channel), row.dialect, row.application,
    row.subscribers === null ? "–" : count(row.subscribers), row.members === null ? "" : count(row.members)]);
  fill(channels.list, table("Channels", [["Channel", "grow"], ["Dialect"], ["Application"], ["Subscribers", "number"], ["Members", "number"]], rows, "No such channel is in use."));
  fill(channels.more, channels.next && h("button", { type: "button", onclick: () => loadChannels(channels.next) }, "More"));
}

function channelHash({ dialect, application, channel }) {
  return `#/channels/${[dialect, application, channel].map(encodeURIComponent).join("/")}`;
}

/** Show one; of another one than before, everything is drawn anew. */
function showChannel(which) {
  channels.shown = which;
  if (!which) {
    fill(channels.one);
    return;
  }
  const state = h("div", { class: "stack" });
  const title = h("h2", { tabindex: "-1" }, which.channel);
  channels.state = state;
  fill(channels.one, h("section", { class: "card" }, title, state, actForm("Publish a test event", [
    field("Name or type of the event, where the dialect has one", "event"),
    field("Data", "data", { size: "whole", element: h("textarea", { rows: "3", spellcheck: "false" }, "This is a test.") }),
  ], "Publish", async ({ event, data }) => {
    const answer = await api("POST", channelPath(which, "events"), { query: { application: which.application }, body: { event, data } });
    return `Published: an app server would get ${answer.status}.`;
  })));
  title.focus();
  return refreshChannel();
}

function channelPath({ dialect, channel }, ...more) {
  return ["channels", dialect, channel, ...more];
}

async function refreshChannel() {
  const { shown: which, state } = channels;
  if (!which) return;
  try {
    const found = await api("GET", channelPath(which), { query: { application: which.application } });
    if (channels.shown !== which) return;
    const members = found.members && table("Members", [["User"], ["Info", "grow"]],
      found.members.map((member) => [h("code", {}, member.user), h("code", {}, member.info)]), "No member.");
    const others = found.members && found.member_count - found.members.length;
    keepingFocus(state, () => fill(state, facts([
      ["Dialect", found.dialect],
      ["Application", found.application],
      ["In use", found.exists ? "yes" : "no"],
      ["Subscribers", found.subscribers === null ? "not counted" : count(found.subscribers)],
      ["Members", found.member_count === null ? "" : count(found.member_count)],
      ["Events stored", found.stored === null ? "" : count(found.stored)],
      ["Position", found.position === null ? "" : count(found.position)],
      ["Events published", found.published === null ? "" : count(found.published)],
      ["Ends in", found.expires_in === null ? "" : duration(found.expires_in)],
    ]), members, others > 0 && h("p", { class: "note" }, `And ${count(others)} others.`)));
  } catch (error) {
    if (channels.shown === which) fill(state, problem(error));
  }
}
