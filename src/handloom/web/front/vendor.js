// What all pages import from ../static/vendor/handloom-vendor.js, and nothing else of these libraries.
export { h, render, Fragment, createRef } from "preact";
export { useState, useEffect, useLayoutEffect, useMemo, useRef, useCallback, useReducer } from "preact/hooks";
export { signal, computed, effect, batch, useSignal, useComputed, useSignalEffect } from "@preact/signals";
export { html } from "htm/preact";
