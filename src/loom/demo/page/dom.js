/** Making nodes. Text is only ever set as text. */

export const $ = (selector) => document.querySelector(selector);

export function el(tag, { dataset = {}, ...properties } = {}, ...children) {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  Object.assign(node.dataset, dataset);
  node.append(...children);
  return node;
}
