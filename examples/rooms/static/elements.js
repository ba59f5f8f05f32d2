// Small makers of elements. Text from people only ever goes in as text, never as HTML.

export const $ = (id) => document.getElementById(id);

export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

// Bring a list in line with `entries`, keeping the elements that stay and with them the focus.
export function fill(list, entries, create, update) {
  const old = new Map(Array.from(list.children, (item) => [item.dataset.key, item]));
  entries.forEach((entry, index) => {
    const item = old.get(entry.key) ?? create(entry);
    item.dataset.key = entry.key;
    old.delete(entry.key);
    update(item, entry);
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  for (const item of old.values()) item.remove();
}

export function avatarOf({ id, name }) {
  const words = name.trim().split(/\s+/);
  const initials = (words.length > 1 ? [words[0], words.at(-1)] : words).map((word) => [...word][0] ?? "");
  const avatar = make("span", "avatar", initials.join("").toUpperCase());
  avatar.style.setProperty("--hue", Number.parseInt(id.slice(0, 4), 16) % 360 || 0);
  avatar.setAttribute("aria-hidden", "true");
  return avatar;
}

// A number with what it counts for those who do not see where it stands.
export function count(element, number, what) {
  element.hidden = !number;
  element.replaceChildren(number > 99 ? "99+" : String(number), make("span", "hidden", ` ${what}`));
}

export function withLinks(text) {
  const parts = text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,:;!?)\]}'])/);
  return parts.map((part, index) => {
    if (index % 2 === 0) return part;
    const link = make("a", "", part);
    link.href = part;
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    return link;
  });
}
