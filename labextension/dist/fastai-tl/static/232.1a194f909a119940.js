"use strict";(self.rspackChunkfastai_tl=self.rspackChunkfastai_tl||[]).push([[232],{475(t,o,e){var r=e(601),n=e.n(r),a=e(314),i=(e.n(a))()(n());i.push([t.id,`.ftl-SidePanel {
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  font-family: var(--jp-ui-font-family);
  font-size: var(--jp-ui-font-size1);
}

/* Lab's own rule for what is in a sidebar names an id. */
#jp-right-stack > #fastai-tl-panel.lm-Widget {
  min-width: 380px;
}

@media (max-width: 1100px) {
  #jp-right-stack > #fastai-tl-panel.lm-Widget {
    min-width: 320px;
  }
}

.ftl-View-host .widget-dropdown {
  max-width: calc(100% - 4px);
}

.ftl-View {
  display: flex;
  flex-direction: column;
  height: 100%;
}

.ftl-View-head {
  flex: 0 0 auto;
  border-bottom: 1px solid var(--jp-border-color2);
}

.ftl-View-host {
  flex: 1 1 auto;
  min-height: 0;
  overflow: auto;
  padding: 8px;
}

.ftl-View-host .ftl-panel {
  border: 0;
  padding: 0 2px;
  max-width: none;
}

.ftl-View-title {
  padding: 8px 10px 2px;
  font-weight: 600;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.ftl-Choice {
  align-items: center;
  display: flex;
  flex-wrap: wrap;
  gap: 4px 10px;
  padding: 2px 10px 6px;
}

.ftl-Choice[hidden],
.ftl-Tabs[hidden] {
  display: none;
}

.ftl-Choice select {
  background: var(--jp-layout-color1);
  border: 1px solid var(--jp-border-color1);
  border-radius: 2px;
  color: inherit;
  font: inherit;
  max-width: 160px;
  padding: 2px 4px;
}

.ftl-Choice .ftl-Button {
  margin-left: auto;
}

.ftl-Share {
  color: var(--jp-ui-font-color2);
}

.ftl-Button {
  background: var(--jp-layout-color1);
  border: 1px solid var(--jp-border-color1);
  border-radius: 2px;
  color: var(--jp-ui-font-color1);
  cursor: pointer;
  font: inherit;
  padding: 3px 10px;
}

.ftl-Button:hover {
  background: var(--jp-layout-color2);
}

.ftl-SidePanel button:focus-visible,
.ftl-SidePanel select:focus-visible,
.ftl-Course button:focus-visible,
.ftl-Status:focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: 1px;
}

.ftl-Training {
  background: rgb(235 140 30 / 18%);
  border-left: 3px solid #eb8c1e;
  font-variant-numeric: tabular-nums;
  margin: 0 10px 6px;
  padding: 3px 8px;
}

.ftl-Note {
  padding: 2px 10px 6px;
}

.ftl-Note p,
.ftl-Problem p {
  line-height: 1.45;
  margin: 4px 0;
  overflow-wrap: anywhere;
}

.ftl-Note pre,
.ftl-Course pre {
  background: var(--jp-layout-color2);
  border-radius: 3px;
  font-family: var(--jp-code-font-family);
  font-size: var(--jp-code-font-size);
  margin: 6px 0;
  overflow-x: auto;
  padding: 6px 8px;
}

.ftl-Note .ftl-Button {
  margin: 4px 6px 2px 0;
}

.ftl-Training[hidden],
.ftl-Note[hidden],
.ftl-Waiting[hidden] {
  display: none;
}

.ftl-Tabs {
  display: flex;
  flex-wrap: wrap;
  gap: 0;
  padding: 0 6px;
}

.ftl-Tab {
  background: none;
  border: 0;
  border-bottom: 3px solid transparent;
  color: var(--jp-ui-font-color1);
  cursor: pointer;
  font: inherit;
  padding: 5px 6px 3px;
}

.ftl-Tab:hover {
  background: var(--jp-layout-color2);
}

.ftl-Tab[aria-selected='true'] {
  border-bottom-color: var(--jp-brand-color1);
}

.ftl-mod-primary {
  background: var(--jp-brand-color1);
  border-color: var(--jp-brand-color1);
  color: var(--jp-ui-inverse-font-color1, #fff);
}

.ftl-Training.ftl-mod-idle {
  background: none;
  border-left-color: var(--jp-border-color2);
  color: var(--jp-ui-font-color2);
}

.ftl-Question-folder {
  display: flex;
  gap: 8px;
}

.ftl-Waiting {
  color: var(--jp-ui-font-color2);
  padding: 8px 4px;
}

.ftl-Problem {
  border-left: 3px solid var(--jp-error-color1);
  padding: 4px 10px;
}

.ftl-Status {
  background: none;
  border: 0;
  color: inherit;
  cursor: pointer;
  font: inherit;
  font-variant-numeric: tabular-nums;
  line-height: 24px;
  max-width: 420px;
  overflow: hidden;
  padding: 0 6px;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.ftl-Status:hover {
  background: rgb(128 128 128 / 20%);
}

.ftl-Course {
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-content-font-size1);
  line-height: 1.5;
  overflow: auto;
  padding: 16px max(16px, calc(50% - 380px));
}

.ftl-Course h1 {
  font-size: 22px;
  font-weight: 600;
  margin: 4px 0;
}

.ftl-Course p {
  margin: 6px 0;
}

.ftl-Course ol {
  list-style: none;
  margin: 8px 0;
  padding: 0;
}

.ftl-Course-next {
  align-items: center;
  display: flex;
  flex-wrap: wrap;
  gap: 6px 14px;
}

.ftl-Course-next .ftl-Button {
  background: var(--jp-brand-color1);
  border-color: var(--jp-brand-color1);
  color: var(--jp-ui-inverse-font-color1, #fff);
  font-weight: 600;
  padding: 6px 16px;
}

.ftl-Lesson {
  align-items: center;
  border-top: 1px solid var(--jp-border-color2);
  display: flex;
  gap: 12px;
  padding: 8px 2px;
}

.ftl-Lesson-number {
  border: 1px solid var(--jp-border-color1);
  border-radius: 50%;
  flex: 0 0 26px;
  height: 26px;
  line-height: 25px;
  text-align: center;
}

.ftl-mod-done .ftl-Lesson-number {
  border-color: #2e7d32;
  border-width: 2px;
}

.ftl-Lesson-text {
  display: flex;
  flex: 1 1 auto;
  flex-direction: column;
  min-width: 0;
}

.ftl-Lesson-about {
  color: var(--jp-ui-font-color2);
  font-size: var(--jp-ui-font-size1);
}

.ftl-Lesson progress {
  height: 6px;
  max-width: 320px;
  width: 100%;
}

.ftl-Question {
  display: flex;
  flex-direction: column;
  gap: 8px;
  min-width: min(440px, 80vw);
}

.ftl-Question input[type='radio'].jp-mod-styled {
  appearance: auto;
  height: 16px;
  margin: 0 4px 0 0;
  vertical-align: -3px;
  width: 16px;
}

.ftl-Question input[type='text'] {
  flex: 1 1 auto;
  margin-left: 22px;
  min-width: 0;
}

.ftl-About {
  max-width: 480px;
}

.ftl-About td {
  padding: 2px 18px 2px 0;
}
`,""]),e.d(o,{},{A:i})},314(t){t.exports=function(t){var o=[];return o.toString=function(){return this.map(function(o){var e="",r=void 0!==o[5];return o[4]&&(e+="@supports (".concat(o[4],") {")),o[2]&&(e+="@media ".concat(o[2]," {")),r&&(e+="@layer".concat(o[5].length>0?" ".concat(o[5]):""," {")),e+=t(o),r&&(e+="}"),o[2]&&(e+="}"),o[4]&&(e+="}"),e}).join("")},o.i=function(t,e,r,n,a){"string"==typeof t&&(t=[[null,t,void 0]]);var i={};if(r)for(var l=0;l<this.length;l++){var p=this[l][0];null!=p&&(i[p]=!0)}for(var d=0;d<t.length;d++){var s=[].concat(t[d]);r&&i[s[0]]||(void 0!==a&&(void 0===s[5]||(s[1]="@layer".concat(s[5].length>0?" ".concat(s[5]):""," {").concat(s[1],"}")),s[5]=a),e&&(s[2]&&(s[1]="@media ".concat(s[2]," {").concat(s[1],"}")),s[2]=e),n&&(s[4]?(s[1]="@supports (".concat(s[4],") {").concat(s[1],"}"),s[4]=n):s[4]="".concat(n)),o.push(s))}},o}},601(t){t.exports=function(t){return t[1]}},72(t){var o=[];function e(t){for(var e=-1,r=0;r<o.length;r++)if(o[r].identifier===t){e=r;break}return e}function r(t,r){for(var n={},a=[],i=0;i<t.length;i++){var l=t[i],p=r.base?l[0]+r.base:l[0],d=n[p]||0,s="".concat(p," ").concat(d);n[p]=d+1;var f=e(s),c={css:l[1],media:l[2],sourceMap:l[3],supports:l[4],layer:l[5]};if(-1!==f)o[f].references++,o[f].updater(c);else{var u=function(t,o){var e=o.domAPI(o);return e.update(t),function(o){o?(o.css!==t.css||o.media!==t.media||o.sourceMap!==t.sourceMap||o.supports!==t.supports||o.layer!==t.layer)&&e.update(t=o):e.remove()}}(c,r);r.byIndex=i,o.splice(i,0,{identifier:s,updater:u,references:1})}a.push(s)}return a}t.exports=function(t,n){var a=r(t=t||[],n=n||{});return function(t){t=t||[];for(var i=0;i<a.length;i++){var l=e(a[i]);o[l].references--}for(var p=r(t,n),d=0;d<a.length;d++){var s=e(a[d]);0===o[s].references&&(o[s].updater(),o.splice(s,1))}a=p}}},659(t){var o={};t.exports=function(t,e){var r=function(t){if(void 0===o[t]){var e=document.querySelector(t);if(window.HTMLIFrameElement&&e instanceof window.HTMLIFrameElement)try{e=e.contentDocument.head}catch(t){e=null}o[t]=e}return o[t]}(t);if(!r)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");r.appendChild(e)}},540(t){t.exports=function(t){var o=document.createElement("style");return t.setAttributes(o,t.attributes),t.insert(o,t.options),o}},56(t,o,e){t.exports=function(t){var o=e.nc;o&&t.setAttribute("nonce",o)}},825(t){t.exports=function(t){if("u"<typeof document)return{update:function(){},remove:function(){}};var o=t.insertStyleElement(t);return{update:function(e){var r,n,a;r="",e.supports&&(r+="@supports (".concat(e.supports,") {")),e.media&&(r+="@media ".concat(e.media," {")),(n=void 0!==e.layer)&&(r+="@layer".concat(e.layer.length>0?" ".concat(e.layer):""," {")),r+=e.css,n&&(r+="}"),e.media&&(r+="}"),e.supports&&(r+="}"),(a=e.sourceMap)&&"u">typeof btoa&&(r+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(a))))," */")),t.styleTagTransform(r,o,t.options)},remove:function(){var t;null===(t=o).parentNode||t.parentNode.removeChild(t)}}}},113(t){t.exports=function(t,o){if(o.styleSheet)o.styleSheet.cssText=t;else{for(;o.firstChild;)o.removeChild(o.firstChild);o.appendChild(document.createTextNode(t))}}},579(t,o,e){var r=e(72),n=e.n(r),a=e(825),i=e.n(a),l=e(659),p=e.n(l),d=e(56),s=e.n(d),f=e(540),c=e.n(f),u=e(113),x=e.n(u),h=e(475),v={};v.styleTagTransform=x(),v.setAttributes=s(),v.insert=p().bind(null,"head"),v.domAPI=i(),v.insertStyleElement=c(),n()(h.A,v),h.A&&h.A.locals&&h.A.locals}}]);